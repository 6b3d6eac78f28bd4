"""A process that answers on an inspector's socket what a file says: for shapes that a program has
only by chance, or not yet.

python -m tests.inspect.fake FILE     a JSON object: the answer of each question
"""

import contextlib
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any


def main() -> None:
    answers = json.loads(Path(sys.argv[1]).read_bytes())
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "rondel"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        print("there", flush=True)
        try:
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client, answers), daemon=True).start()
        finally:
            path.unlink()


def serve(client: socket.socket, answers: dict[str, Any]) -> None:
    with client, client.makefile("rb") as lines, contextlib.suppress(OSError):
        for line in lines:
            answer = answers.get(json.loads(line)["ask"], {"error": "unknown"})
            client.sendall(json.dumps({"v": 1, **answer}).encode() + b"\n")


if __name__ == "__main__":
    main()
