"""Where the page listens, as it is written: ``[[HOST:]PORT]``."""

import ipaddress
import re
from dataclasses import dataclass

__all__ = ["Address", "parse"]

_WRITTEN = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]/\s]+):)?(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; port 0 is a free one."""

    host: str = "127.0.0.1"
    port: int = 0

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """The address of ``8001``, ``0.0.0.0:8001``, ``[::1]:8001``. Raises ValueError."""
    found = _WRITTEN.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise ValueError(f"{text!r} is not [HOST:]PORT")
    host = found["host"]
    return Address(host.strip("[]") if host else "127.0.0.1", int(found["port"]))
