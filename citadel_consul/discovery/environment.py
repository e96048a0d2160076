"""Where Consul is, as a service's environment says it: the variables that Consul's own tools read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from citadel_consul.config import options
from citadel_consul.config.options import Setting
from citadel_consul.consul.address import ConsulAddress, parse_address
from citadel_consul.errors import InvalidInput, Problem

T = TypeVar("T")


def consul_from_environment(environ: Mapping[str, str] | None = None) -> ConsulAddress:
    """The Consul of ``CONSUL_HTTP_ADDR``, ``CONSUL_HTTP_TOKEN``, ``CONSUL_CACERT`` and the rest of them.

    ``environ`` is the process's own by default; a variable that is empty counts as not set. Raises InvalidInput for a
    value that makes no sense, and for a token file that cannot be read.
    """
    variables = os.environ if environ is None else environ
    address = parse_address(_value(options.CONSUL_ADDRESS, variables))
    ssl = _value(options.CONSUL_SSL, variables) and address.scheme == "http"
    return replace(
        address,
        scheme="https" if ssl else address.scheme,
        token=_token(variables),
        cacert=_path(options.CONSUL_CACERT, variables),
        capath=_path(options.CONSUL_CAPATH, variables),
        client_cert=_path(options.CONSUL_CLIENT_CERT, variables),
        client_key=_path(options.CONSUL_CLIENT_KEY, variables),
        verify=_value(options.CONSUL_SSL_VERIFY, variables),
        tls_server_name=_value(options.CONSUL_TLS_SERVER_NAME, variables),
    )


def _value(setting: Setting[T], environ: Mapping[str, str]) -> T:
    text = environ.get(setting.variable)
    if not text:
        return setting.usual(environ)
    try:
        return setting.parse(text)
    except InvalidInput as error:
        raise InvalidInput(Problem(setting.variable, p.message, p.remedy) for p in error.problems) from error


def _path(setting: Setting[Path | None], environ: Mapping[str, str]) -> str | None:
    path = _value(setting, environ)
    return None if path is None else str(path)


def _token(environ: Mapping[str, str]) -> str | None:
    """What the token file holds or, if that is empty or not set, the token variable."""
    token = _value(options.CONSUL_TOKEN, environ)
    file = _value(options.CONSUL_TOKEN_FILE, environ)
    if file is None:
        return token
    try:
        return file.read_text(encoding="utf-8").strip() or token
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        place = options.CONSUL_TOKEN_FILE.variable
        raise InvalidInput.at(place, f"{file} cannot be read: {reason}", "check the path") from error
