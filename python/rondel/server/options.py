"""Options, spelled once: each is a field of a dataclass in ``config`` that is made by ``option``.

From that one definition come the command line's option, the environment variable, the key of the
configuration file, the check of a value wherever it comes from, and the table in docs/cli.md
(``scripts/option_table.py`` writes it).

    field            graceful_timeout
    command line     --graceful-timeout 10
    environment      RONDEL_GRACEFUL_TIMEOUT=10
    file             graceful-timeout = 10      (rondel.toml, or [tool.rondel] in pyproject.toml)

What comes first wins: command line, environment, file, default. Where values come from is in
``settings``. A value that is no good is a ``UsageError`` that names where it stood.
"""

import dataclasses
import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "GROUPS",
    "Kind",
    "Option",
    "build",
    "flag_words",
    "kinds",
    "markdown",
    "option",
    "options_of",
    "spelled",
    "split_mounts",
]

# The order of `--help` and of the docs.
GROUPS = (
    "application",
    "address",
    "tls",
    "process",
    "static",
    "reload",
    "logs",
    "websocket",
    "limits",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of values: how text becomes one, and which of a TOML file's values are."""

    name: str
    # From the command line's or the environment's text; raises ValueError.
    parse: Callable[[str], Any]
    # From a file's value; raises ValueError.
    accept: Callable[[Any], Any]
    # What a value must be, to complete "'x' is not ...".
    what: str
    # What stands for the value in usage.
    metavar: str | None = None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _whole(least: int, most: float = math.inf) -> Callable[[Any], int]:
    def accept(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(value)
        return value

    return accept


def _of_text(accept: Callable[[Any], Any], convert: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: accept(convert(text))


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(value)
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(value)
    return number


def flag_words(text: str) -> bool:
    """``on`` and ``off`` as people write them; raises ValueError."""
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


# Suffixes are powers of 1024, as in systemd's and nginx's settings.
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _size(value: Any) -> int:
    if isinstance(value, str):
        text = value.strip().lower().removesuffix("ib").removesuffix("b")
        unit = _UNITS.get(text[-1:], 1)
        number = float(text[:-1] if unit != 1 else text) * unit
        if not 0 < number < 1 << 62:
            raise ValueError(value)
        return int(number)
    return _whole(1)(value)


def _bytes(value: Any) -> int:
    """A size, or 0 for none."""
    return 0 if value in (0, "0") and not isinstance(value, bool) else _size(value)


def _workers(value: Any) -> "int | str":
    return value if value == "auto" else _whole(1)(value)


def _mode(value: Any) -> int:
    """A file's mode: text is octal, as chmod's is; a file may write 0o660."""
    number = int(value, 8) if isinstance(value, str) else _whole(0)(value)
    if not 0 <= number <= 0o777:
        raise ValueError(value)
    return number


def _tax(value: Any) -> str:
    """Off, on (all requests), or for those that ask for it."""
    if value in ("ask", "all", "off"):
        return str(value)
    return "all" if (flag_words(value) if isinstance(value, str) else _flag(value)) else "off"


# RFC 9110's tokens.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _request_id(value: Any) -> "str | None":
    """A header's name, or whether there is one."""
    if isinstance(value, bool):
        return "X-Request-ID" if value else None
    try:
        return _request_id(flag_words(_text(value)))
    except ValueError:
        if _TOKEN.fullmatch(_text(value)) is None:
            raise
        return str(value)


def _url_path(value: Any) -> str:
    """A path as it stands in a request: no query, nothing that would be encoded."""
    text = _text(value)
    if re.fullmatch(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*", text) is None:
        raise ValueError(value)
    return text


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(word for word in value.replace(",", " ").split() if word)
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise ValueError(value)
    return tuple(value)


def _paths(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise ValueError(value)
    return tuple(value)


# uvicorn's numbers are those of the ssl module: CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED.
_CERT_REQS = {"0": "none", "1": "optional", "2": "required"}


def _cert_reqs(value: Any) -> str:
    text = str(value).lower().removeprefix("cert_")
    return _CERT_REQS.get(text, text)


def _codings(value: Any) -> tuple[str, ...]:
    words = tuple(word.lower() for word in _names(value))
    if not {"gzip", "br", "zstd"}.issuperset(words):
        raise ValueError(value)
    return words


def _networks(value: Any) -> tuple[str, ...]:
    words = _names(value)
    for word in words:
        if word != "*":
            ipaddress.ip_network(word, strict=False)
    return words


# As it stands in a request, without what would be encoded, and without "=".
_ROUTE = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;:@-]+/?)*")


def split_mounts(mounts: Iterable[str]) -> list[tuple[str, str]]:
    """Routes and folders of ``ROUTE=DIR``; raises ValueError with the first that is none."""
    found: dict[str, str] = {}
    for mount in mounts:
        route, _, folder = mount.partition("=")
        if not folder or _ROUTE.fullmatch(route) is None or (route.rstrip("/") in found):
            raise ValueError(mount)
        found[route.rstrip("/")] = folder
    return list(found.items())


def _mounts(value: Any) -> tuple[str, ...]:
    mounts = _names(value)
    split_mounts(mounts)
    return mounts


def _page_address(value: Any) -> str:
    """Where the inspector's page listens; a file may have a port as a number."""
    from rondel.inspect.web.address import parse

    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(value)
    return str(parse(str(value)))


def _kind(
    name: str,
    accept: Callable[[Any], Any],
    what: str,
    metavar: str | None = None,
    convert: Callable[[str], Any] = str,
) -> Kind:
    return Kind(name, _of_text(accept, convert), accept, what, metavar)


class kinds:  # noqa: N801  (a namespace)
    """The types that options have."""

    text = _kind("text", _text, "a text", "TEXT")
    path = _kind("path", _text, "a path", "PATH")
    count = _kind("count", _whole(1), "a positive whole number", "N", int)
    number = _kind("number", _whole(0), "a whole number (0 or more)", "N", int)
    port = _kind("port", _whole(0, 65535), "a port (0 to 65535)", "PORT", int)
    seconds = _kind("seconds", _seconds, "a number of seconds (0 or more)", "S", float)
    size = _kind("size", _size, "a number of bytes, as 512M or 1g", "BYTES")
    bytes = _kind("bytes", _bytes, "a number of bytes (0 or more), as 512M or 1g", "BYTES")
    mode = _kind("mode", _mode, "a mode in octal, as 660", "MODE")
    flag = _kind("flag", _flag, "on or off", None, flag_words)
    workers = _kind(
        "workers",
        _workers,
        "a positive whole number, or auto",
        "N",
        lambda text: text if text == "auto" else int(text),
    )
    names = _kind("names", _names, "a list of names", "NAME")
    paths = _kind("paths", _paths, "a list of paths", "PATH")
    cert_reqs = _kind("cert_reqs", _cert_reqs, "none, optional or required")
    mounts = _kind("mounts", _mounts, "a list of ROUTE=DIR, each route once", "ROUTE=DIR")
    codings = _kind("codings", _codings, "a list of gzip, br and zstd", "CODING")
    networks = _kind("networks", _networks, "a list of IP addresses and networks, or *", "IP")
    request_id = _kind("request_id", _request_id, "a header's name, on or off", "NAME")
    url_path = _kind("url_path", _url_path, "a URL's path, as /metrics", "PATH")
    page_address = _kind("page_address", _page_address, "[HOST:]PORT", "[HOST:]PORT")
    tax = _kind("tax", _tax, "on, off or ask")


@dataclass(frozen=True, slots=True)
class Option:
    """One option under all its names; ``options_of`` finds them."""

    # The dataclass's field, and the path to it: ("limits",) for those of the limits.
    field: str
    within: tuple[str, ...]
    # The option's name in words joined by "_": the key of everything.
    key: str
    kind: Kind
    group: str
    help: str
    default: Any
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    # The environment's variable, if it is not called as the key is.
    variable: str | None = None

    @property
    def cli(self) -> str:
        """``--graceful-timeout``."""
        return "--" + self.key.replace("_", "-")

    @property
    def environment(self) -> str:
        """``RONDEL_GRACEFUL_TIMEOUT``."""
        return self.variable or "RONDEL_" + self.key.upper()

    @property
    def toml(self) -> str:
        """``graceful-timeout``; underscores are understood as well."""
        return self.key.replace("_", "-")

    def parse(self, text: str) -> Any:
        """The value of a command line's or an environment's text; raises ValueError with a text
        that completes "NAME: ".
        """
        return self._checked(self.kind.parse, text)

    def accept(self, value: Any) -> Any:
        """A file's value, checked; raises ValueError as ``parse`` does."""
        return self._checked(self.kind.accept, value)

    def _checked(self, take: Callable[[Any], Any], value: Any) -> Any:
        try:
            taken = take(value)
        except ValueError:
            raise ValueError(f"{value!r} is not {self.kind.what}") from None
        if self.choices and taken not in self.choices:
            raise ValueError(f"{value!r} is none of {', '.join(self.choices)}")
        return taken


def option(
    default: Any,
    kind: Kind,
    group: str,
    help: str,
    *,
    key: str | None = None,
    choices: tuple[str, ...] = (),
    metavar: str | None = None,
    variable: str | None = None,
    secret: bool = False,
) -> Any:
    """A dataclass field that is an option. ``help`` begins in lower case and ends without a stop;
    ``{default}`` in it stands for the default, which is added at the end otherwise.
    """
    if group not in GROUPS:
        raise ValueError(group)
    told = {
        "kind": kind,
        "group": group,
        "help": help,
        "key": key,
        "choices": choices,
        "metavar": metavar,
        "variable": variable,
    }
    return dataclasses.field(default=default, metadata={"option": told}, repr=not secret)


def options_of(cls: type, within: tuple[str, ...] = ()) -> Iterator[Option]:
    """The options of a dataclass, and of the dataclasses that its fields default to."""
    for field in dataclasses.fields(cls):
        told = field.metadata.get("option")
        if told is not None:
            yield Option(
                field=field.name,
                within=within,
                key=told["key"] or field.name,
                kind=told["kind"],
                group=told["group"],
                help=told["help"],
                default=field.default,
                choices=told["choices"],
                metavar=told["metavar"],
                variable=told["variable"],
            )
        elif isinstance(field.default_factory, type):
            yield from options_of(field.default_factory, (*within, field.name))


def build(cls: type, values: Mapping[str, Any], **others: Any) -> Any:
    """An instance of the dataclass from values by option key; ``others`` are fields of its own."""
    inner: dict[str, dict[str, Any]] = {}
    own: dict[str, Any] = dict(others)
    for one in options_of(cls):
        if one.key in values:
            target = inner.setdefault(one.within[0], {}) if one.within else own
            target[one.field] = values[one.key]
    for field in dataclasses.fields(cls):
        if field.name in inner and isinstance(field.default_factory, type):
            own[field.name] = field.default_factory(**inner[field.name])
    return cls(**own)


def spelled(one: Option, value: Any) -> str:
    """A value as one would write it."""
    if value is None or value == ():
        return ""
    if one.kind is kinds.flag:
        return "on" if value else "off"
    if one.kind is kinds.mode:
        return f"{value:o}"
    if one.kind is kinds.seconds:
        return f"{value:g}"
    if one.kind in (kinds.names, kinds.networks, kinds.codings, kinds.mounts):
        return " ".join(value)
    if one.kind is kinds.paths:
        return ",".join(value)
    return str(value)


def markdown() -> str:
    """The table of docs/cli.md."""
    from rondel.server.config import Config

    lines = ["| option | environment | in a file | default | what |", "|---|---|---|---|---|"]
    for group in GROUPS:
        for one in options_of(Config):
            if one.group == group:
                cells = (
                    f"`{one.cli}`",
                    f"`{one.environment}`",
                    f"`{one.toml}`",
                    spelled(one, one.default) or "–",
                    one.help.replace("|", "\\|"),
                )
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
