"""Addresses in configuration: ``host:port`` and URLs, read strictly enough that a typo is found before a start."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from citadel_consul.errors import InvalidInput

_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_NUMERIC = re.compile(r"[0-9.]+")
_ANY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - refused, not bound
_BLANK_OR_CONTROL = re.compile(r"[\x00-\x20\x7f]")


class HostPort(NamedTuple):
    """A host (without the brackets of IPv6) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_host(text: str) -> bool:
    """Whether ``text`` is an IP address or a host name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # What consists of digits and dots alone is a mistyped IPv4 address, never a name.
        return _HOST.fullmatch(text) is not None and _NUMERIC.fullmatch(text) is None
    return True


def is_loopback(host: str) -> bool:
    """Whether a socket bound to ``host`` is reachable from this machine alone.

    Names other than ``localhost`` count as reachable from outside: what they resolve to can change.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def parse_host_port(text: str, *, lowest_port: int = 1) -> HostPort:
    """Read ``host:port``, an IPv6 host in brackets. Raises InvalidInput with an empty place."""
    remedy = "write it as host:port, like 127.0.0.1:6333 or [::1]:6333"
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise InvalidInput.at("", f"{text!r} is not host:port", remedy)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidInput.at("", f"{text!r} is not host:port", remedy)
    if not is_host(host):
        raise InvalidInput.at("", f"{host!r} is not a host name or IP address", remedy)
    return HostPort(host, _port(port, lowest_port, remedy))


def parse_endpoint(text: str) -> HostPort:
    """The host and port of an endpoint ``scheme://host:port[/path]``. Raises InvalidInput with an empty place."""
    remedy = "write it as scheme://host:port, like http://127.0.0.1:6333"
    parts = _split_url(text, remedy)
    if parts.username is not None or parts.password is not None:
        raise InvalidInput.at("", "an endpoint is public and must not hold credentials", "remove the part before the @")
    if parts.hostname in _ANY_ADDRESS:
        message = f"{parts.hostname} is where a server listens, not where clients reach it"
        raise InvalidInput.at("", message, "name the host that clients use")
    port = _url_port(parts, remedy)
    if port is None:
        raise InvalidInput.at("", f"{text!r} has no port", remedy)
    return HostPort(parts.hostname or "", port)


def check_http_url(text: str) -> str:
    """Return ``text`` if it is a URL that an http check can ask. Raises InvalidInput with an empty place."""
    remedy = "write it as http://host:port/path or https://host:port/path"
    parts = _split_url(text, remedy)
    if parts.scheme not in {"http", "https"}:
        raise InvalidInput.at("", f"an http check cannot ask {parts.scheme}://", remedy)
    _url_port(parts, remedy)
    return text


def check_webhook_url(text: str) -> str:
    """Return ``text`` if it is a URL that can be posted to. Raises InvalidInput, empty place, without the URL in it.

    A webhook's URL is often the only secret that protects it, so no message may repeat it.
    """
    remedy = "write it as https://host/path"
    try:
        parts = _split_url(text, remedy)
        _url_port(parts, remedy)
    except InvalidInput:
        raise InvalidInput.at("", "is not a URL with a valid host and port", remedy) from None
    if parts.scheme not in {"http", "https"}:
        raise InvalidInput.at("", f"a webhook cannot be {parts.scheme}://", remedy)
    if parts.username is not None or parts.password is not None:
        raise InvalidInput.at("", "holds credentials before the @", "use token_file, or a header from a file")
    if parts.fragment:
        raise InvalidInput.at("", "holds a fragment (#…), which is never sent", "remove it")
    return text


def check_grpc_target(text: str) -> str:
    """Return ``text`` if it is ``host:port[/service]``. Raises InvalidInput with an empty place."""
    parse_host_port(text.partition("/")[0])
    return text


def _split_url(text: str, remedy: str) -> SplitResult:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise InvalidInput.at("", f"{text!r} is not a URL: {error}", remedy) from error
    if _BLANK_OR_CONTROL.search(text) or "://" not in text or not _SCHEME.fullmatch(parts.scheme):
        raise InvalidInput.at("", f"{text!r} is not a URL", remedy)
    if not parts.hostname or not is_host(parts.hostname):
        raise InvalidInput.at("", f"{text!r} has no valid host", remedy)
    return parts


def _url_port(parts: SplitResult, remedy: str) -> int | None:
    _, colon, port = parts.netloc.rpartition("@")[2].rpartition(":")
    if not colon or "]" in port:
        return None
    return _port(port, 1, remedy)


def _port(text: str, lowest: int, remedy: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and lowest <= int(text) <= 65535):
        raise InvalidInput.at("", f"{text!r} is not a port ({lowest} to 65535)", remedy)
    return int(text)
