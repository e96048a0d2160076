"""Parsers of single settings: each takes text, or what YAML makes of it.

They raise InvalidInput with an empty place.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from citadel_consul.config.addresses import HostPort, is_host, parse_host_port
from citadel_consul.config.durations import format_duration, parse_duration
from citadel_consul.config.suggestions import suggest
from citadel_consul.core import names
from citadel_consul.errors import InvalidInput

E = TypeVar("E", bound=StrEnum)

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
# strconv.ParseBool of Go, by which Consul's own tools read their variables.
_GO_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_GO_FALSE = {"0", "f", "F", "FALSE", "false", "False"}


def text(value: object) -> str:
    """Any text on one line that is not empty; a number as it was written."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput.at("", "is not text", "quote the value")
    written = str(getattr(value, "text", value)).strip()
    if not written:
        raise InvalidInput.at("", "is empty", "give it a value, or remove it")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in written):
        raise InvalidInput.at("", "holds a control character (a line break?)", "write it on one line")
    return written


def path(value: object) -> Path:
    """A path; what it is relative to depends on where it was given."""
    return Path(text(value))


def boolean(value: object) -> bool:
    """true/false, yes/no, on/off, 1/0 in any case."""
    word = _word(value)
    if word.lower() not in _TRUE | _FALSE:
        raise InvalidInput.at("", f"{word!r} is neither true nor false", "use true or false")
    return word.lower() in _TRUE


def go_boolean(value: object) -> bool:
    """The spellings that Consul's own tools accept.

    They read another spelling as false, with a warning; for CONSUL_HTTP_SSL_VERIFY that turns a typing error into
    no verification at all, so it is an error here.
    """
    word = _word(value)
    if word not in _GO_TRUE | _GO_FALSE:
        raise InvalidInput.at("", f"{word!r} is neither true nor false", "use true or false")
    return word in _GO_TRUE


def positive_int(value: object) -> int:
    """A whole number of at least 1."""
    written = text(value)
    if not (written.isascii() and written.isdigit() and len(written) <= 9 and int(written) >= 1):
        raise InvalidInput.at("", f"{written!r} is not a whole number of 1 or more", "use a number like 3")
    return int(written)


def several(most: int | None = None) -> Callable[[object], int]:
    """A parser of whole numbers of at least 2, and of at most ``most``."""

    def parse(value: object) -> int:
        number = positive_int(value)
        if number < 2 or (most is not None and number > most):
            wanted = "2 or more" if most is None else f"2 to {most}"
            raise InvalidInput.at("", f"{number} is out of range", f"use {wanted}")
        return number

    return parse


class Percent(int):
    """A share in whole per cent."""

    def __str__(self) -> str:
        return f"{int(self)}%"

    @property
    def share(self) -> float:
        """The same as a number from 0 to 1."""
        return self / 100.0


def percent(value: object) -> Percent:
    """A share from 1 % to 100 %, with or without its sign: a number below 1 is no share, lest 1 be two things."""
    written = text(value)
    digits = written.removesuffix("%").rstrip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and 1 <= int(digits) <= 100):
        raise InvalidInput.at("", f"{written!r} is not a share in whole per cent", "use a number from 1% to 100%")
    return Percent(digits)


def duration(shortest: float, longest: float | None = None) -> Callable[[object], float]:
    """A parser of durations between ``shortest`` and ``longest`` seconds."""

    def parse(value: object) -> float:
        seconds = parse_duration(value)
        if seconds < shortest:
            message = f"{format_duration(seconds)} is too short"
            raise InvalidInput.at("", message, f"use {format_duration(shortest)} or more")
        if longest is not None and seconds > longest:
            message = f"{format_duration(seconds)} is too long"
            raise InvalidInput.at("", message, f"use {format_duration(longest)} or less")
        return seconds

    return parse


def choice(options: type[E], aliases: dict[str, str] | None = None) -> Callable[[object], E]:
    """A parser of one of the values of an enum, in any case; ``aliases`` are other words, in upper case."""
    by_word = {option.value.upper(): option for option in options}
    by_word.update({alias: options(value) for alias, value in (aliases or {}).items()})

    def parse(value: object) -> E:
        word = text(value)
        if word.upper() not in by_word:
            known = [option.value for option in options]
            raise InvalidInput.at("", f"{word!r} is not one of {', '.join(known)}", suggest(word, known, "use one of"))
        return by_word[word.upper()]

    return parse


def name(value: object) -> str:
    """A name as stacks and nodes have it."""
    label = text(value)
    if not names.is_label(label):
        raise InvalidInput.at("", f"{label!r} is not a valid name", f"use {names.RULE}")
    return label


def host(value: object) -> str:
    """An IP address or a host name, without a port."""
    address = text(value)
    if not is_host(address):
        raise InvalidInput.at("", f"{address!r} is not a host name or IP address", "write it like 192.168.10.30")
    return address


class Hosts(tuple[str, ...]):
    """Host names, as they are written: with commas between them."""

    __slots__ = ()

    def __str__(self) -> str:
        return ", ".join(self)


def hosts(value: object) -> Hosts:
    """Host names or addresses, as a list or with commas between them; in lower case, as names compare."""
    parts = value if isinstance(value, list) else text(value).split(",")
    return Hosts(host(part).lower() for part in parts)


def bind(value: object) -> HostPort:
    """``host:port`` to listen on; port 0 lets the kernel choose one."""
    return parse_host_port(text(value), lowest_port=0)


def consul_address(value: object) -> str:
    """An address of Consul's HTTP API, as CONSUL_HTTP_ADDR has it; returned as given."""
    address = text(value)
    scheme, separator, rest = address.partition("://")
    remedy = "write it like 127.0.0.1:8500, https://consul.example:8501 or unix:///run/consul.sock"
    if separator and scheme not in {"http", "https", "unix"}:
        raise InvalidInput.at("", f"{scheme}:// is not a scheme of Consul's HTTP API", remedy)
    if " " in address or (separator and not rest) or "@" in address:
        raise InvalidInput.at("", "is not an address of Consul's HTTP API", remedy)
    return address


def _word(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else text(value)
