"""The asking side of the inspector's socket, for ``ps``, ``tree``, ``stalls``, ``requests`` ...

The protocol is described in ``crates/rondel-core/src/inspect/service.rs``. Every failure is an
``InspectError`` whose message says what to do.
"""

import contextlib
import json
import os
import socket
import stat
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["InspectError", "Recorder", "ask", "processes"]

VERSION = 1

# Seconds for an answer; the process itself gives up after 5.
PATIENCE = 8.0
# Bytes of an answer.
_LONGEST = 1 << 30


class InspectError(Exception):
    """What went wrong, and what to do about it."""

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        #: What the process itself called it; None if it gave no answer.
        self.kind = kind


class _CutError(InspectError):
    """The connection ended before there was an answer."""


def folders(environment: dict[str, str] | None = None, uid: int | None = None) -> list[Path]:
    """Where sockets may be, for a process with this environment and user."""
    env = dict(os.environ) if environment is None else environment
    uid = os.geteuid() if uid is None else uid
    places = []
    if env.get("XDG_RUNTIME_DIR", "").startswith("/"):
        places.append(Path(env["XDG_RUNTIME_DIR"], "rondel"))
    places.append(Path("/run/user", str(uid), "rondel"))
    for temporary in (env.get("TMPDIR", ""), "/tmp"):
        if temporary.startswith("/"):
            places.append(Path(temporary, f"rondel-{uid}"))
    return list(dict.fromkeys(places))


def _is_private(folder: Path, uid: int) -> bool:
    """Whether nobody but this user can have put a socket there."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


def processes() -> list[tuple[int, Path]]:
    """Processes of this user that have a socket, by number. Sockets of dead ones are removed."""
    found = {}
    uid = os.geteuid()
    for folder in folders():
        if not _is_private(folder, uid):
            continue
        for path in folder.glob("*.sock"):
            if not path.stem.isdecimal():
                continue
            pid = int(path.stem)
            # Asked, not looked up: the folder may be shared with processes of another container.
            if _answers(path):
                found[pid] = path
            else:
                path.unlink(missing_ok=True)
    return sorted(found.items())


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(1)
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            # Full, or slow: alive.
            return True
    return True


def _path_of(pid: int) -> Path:
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        raise InspectError(f"no process {pid}; `rondel ps` lists those that can be asked") from None
    mine = os.geteuid()
    if mine not in (uid, 0):
        raise InspectError(
            f"process {pid} belongs to another user: only its owner and root may look into it"
        )
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
        pairs = [item.partition(b"=") for item in raw.split(b"\0") if b"=" in item]
        environment = {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}
    except OSError:
        environment = {}
    for folder in [*folders(environment, uid), *folders()]:
        path = folder / f"{pid}.sock"
        if _is_private(folder, uid) and path.exists():
            return path
    raise InspectError(
        f"process {pid} does not answer for Rondel: it runs no Rondel loop yet, or was started "
        "with RONDEL_INSPECT=0, or does not use Rondel (`rondel ps` lists those that do)"
    )


def ask(
    pid: int, question: str, path: Path | None = None, patience: float = PATIENCE
) -> dict[str, Any]:
    """Ask a process, for at most so many seconds. Raises ``InspectError``."""
    path = path or _path_of(pid)
    with socket.socket(socket.AF_UNIX) as sock:
        return _exchange(sock, pid, {"ask": question}, patience, path)


class Recorder:
    """A recording that a process makes of itself, for at most so many seconds.

    It ends with the connection on which it was asked for: when it is fetched or closed, or this
    process is no more, however that came. Raises ``InspectError``.
    """

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid = pid
        path = _path_of(pid)
        self._sock = socket.socket(socket.AF_UNIX)
        try:
            question = {"ask": f"record {seconds:g}", "held": True}
            _exchange(self._sock, pid, question, PATIENCE, path)
        except BaseException:
            self._sock.close()
            raise

    def fetch(self, patience: float = PATIENCE) -> dict[str, Any]:
        """What was recorded, to its end now. Raises ``InspectError``."""
        with self._sock:
            try:
                return _exchange(self._sock, self._pid, {"ask": "recorded"}, patience)
            except _CutError:
                # It has forked meanwhile, or is of an older Rondel, and records still.
                return ask(self._pid, "recorded", None, patience)

    def close(self) -> None:
        """It is not wanted any more. On any thread, also while another waits for it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _exchange(
    sock: socket.socket,
    pid: int,
    question: dict[str, Any],
    patience: float,
    path: Path | None = None,
) -> dict[str, Any]:
    """A question and its answer; ``path``: where to connect to before."""
    sock.settimeout(patience)
    try:
        if path is not None:
            sock.connect(str(path))
        sock.sendall(json.dumps({"v": VERSION, **question}).encode() + b"\n")
        line = _line(sock)
    except TimeoutError:
        raise InspectError(
            f"process {pid} gave no answer within {patience:.0f} seconds: it may be stopped "
            "(`kill -CONT`), or the machine overloaded; try again"
        ) from None
    except (BrokenPipeError, ConnectionResetError) as error:
        raise _CutError(f"process {pid} cannot be asked: {error.strerror}") from None
    except OSError as error:
        raise InspectError(f"process {pid} cannot be asked: {error.strerror}") from None
    try:
        answer = json.loads(line)
    except ValueError:
        raise _CutError(f"process {pid} went away while it answered, or too many ask it") from None
    if "error" in answer:
        raise InspectError(_explain(pid, answer), answer["error"])
    if answer.get("v") != VERSION:
        raise InspectError(f"process {pid} runs another version of Rondel: use its own `rondel`")
    return dict(answer)


def _line(sock: socket.socket) -> bytes:
    parts: list[bytes] = []
    size = 0
    while not parts or not parts[-1].endswith(b"\n"):
        part = sock.recv(1 << 18)
        if not part:
            break
        size += len(part)
        if size > _LONGEST:
            raise OSError(0, "its answer is too long")
        parts.append(part)
    return b"".join(parts)


def ask_requests(pid: int, *, stacks: bool = False, patience: float = PATIENCE) -> dict[str, Any]:
    """A process's requests, with the stacks of the threads that are at them where that is known.

    Raises ``InspectError``: "unknown" if its Rondel tells of none.
    """
    for question in (*(["requests stacks"] if stacks else []), "requests"):
        try:
            return ask(pid, question, None, patience)
        except InspectError as error:
            if error.kind == "gil":
                break
            if error.kind != "unknown":
                raise
    # It needs no GIL, and knows less.
    return ask(pid, "requests now", None, patience)


def _explain(pid: int, answer: dict[str, Any]) -> str:
    kind = answer["error"]
    if kind == "gil":
        return (
            f"process {pid} could not look at its tasks in time: native code, or a thread that "
            f"never gives it up, holds the GIL; `rondel stalls {pid}` and `rondel ps` need no GIL"
        )
    if kind in ("unknown", "version"):
        return f"process {pid} runs another version of Rondel: use its own `rondel`"
    return f"process {pid}: {answer.get('message', kind)}"
