"""A process that answers on an inspector's socket what a file says: for shapes that a program has
only by chance, or not yet.

python -m tests.inspect.fake FILE     a JSON object: the answer of each question
"""

import json
import os
import socket
import sys
from pathlib import Path


def main() -> None:
    answers = Path(sys.argv[1])
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
                with client:
                    serve(client, answers)
        finally:
            path.unlink()


def serve(client: socket.socket, answers: Path) -> None:
    with client.makefile("rb") as lines:
        for line in lines:
            question = json.loads(line)["ask"]
            # Anew each time: a test may change it.
            answer = json.loads(answers.read_bytes()).get(question, {"error": "unknown"})
            client.sendall(json.dumps({"v": 1, **answer}).encode() + b"\n")


if __name__ == "__main__":
    main()
