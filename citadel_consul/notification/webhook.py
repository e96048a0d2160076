"""Webhooks: a notice posted as JSON.

The URL and the headers can be secrets, so neither is ever part of a message. Redirects are not followed: they would
carry a token to wherever a receiver points.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx

from citadel_consul import __version__
from citadel_consul.config.addresses import check_webhook_url
from citadel_consul.config.receivers import WebhookReceiver, place_of
from citadel_consul.core.notice import Notice, Transition
from citadel_consul.errors import InvalidInput, ReceiverRefused, ReceiverUnavailable
from citadel_consul.notification.body import body_of
from citadel_consul.notification.rehearsal import rehearsal

RETRIABLE: Final = frozenset({408, 425, 429})
"""The client errors that time can heal; so can every server error."""


class WebhookChannel:
    """Posts notices to one URL."""

    def __init__(self, receiver: WebhookReceiver, directories: Sequence[Path] = ()) -> None:
        self._receiver = receiver
        self._directories = tuple(directories)
        self._client: httpx.AsyncClient | None = None
        for transition in Transition:  # a broken template is to be found now, and not by the first incident
            body_of(rehearsal(transition, stack="example", leader="nobody", at=0.0), receiver.template, directories)

    @property
    def name(self) -> str:
        return self._receiver.name

    @property
    def when(self) -> frozenset[Transition]:
        return self._receiver.when

    async def deliver(self, notice: Notice) -> None:
        url = self._url()
        body = body_of(notice, self._receiver.template, self._directories)
        headers = {**self._headers(), "Content-Type": "application/json", "Idempotency-Key": notice.id}
        client = await self._open()
        try:
            async with (
                asyncio.timeout(self._receiver.timeout_seconds),  # the whole of it: httpx bounds only each part
                client.stream("POST", url, content=body, headers=headers) as response,
            ):
                status = response.status_code
        except (TimeoutError, httpx.TimeoutException):
            raise ReceiverUnavailable(
                f"{place_of(url)} did not answer within {self._receiver.timeout_seconds:g} s"
            ) from None
        except httpx.HTTPError as error:
            raise ReceiverUnavailable(f"{place_of(url)}: {_reason(error)}") from None
        except (httpx.InvalidURL, ValueError):
            raise ReceiverRefused(f"{place_of(url)}: the URL or a header cannot be sent") from None
        _judge(status, place_of(url))

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            # Reading the certificates of the machine takes tens of milliseconds, which the control loop shall not feel.
            self._client = await asyncio.to_thread(_client)
        return self._client

    def _url(self) -> str:
        if self._receiver.url is not None:
            return self._receiver.url
        path = self._receiver.url_file
        url = "" if path is None else read_secret(path)
        try:
            return check_webhook_url(url)
        except InvalidInput as error:
            raise ReceiverRefused(f"{path}: {error}") from None

    def _headers(self) -> dict[str, str]:
        headers = {
            name: read_secret(value) if isinstance(value, Path) else value
            for name, value in self._receiver.headers.items()
        }
        if self._receiver.token_file is not None:
            headers["Authorization"] = f"Bearer {read_secret(self._receiver.token_file)}"
        return headers


def read_secret(path: Path) -> str:
    """What a file of one line holds. Raises ReceiverRefused, without any of it."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not ASCII text"
        raise ReceiverRefused(f"{path} cannot be read: {reason}") from None
    if not text or not text.isprintable():
        raise ReceiverRefused(f"{path} has to hold one line of text")
    return text


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, headers={"User-Agent": f"citadel/{__version__}"})


def _judge(status: int, place: str) -> None:
    if 200 <= status < 300:
        return
    if status >= 500 or status in RETRIABLE:
        raise ReceiverUnavailable(f"{place} answered {status}")
    raise ReceiverRefused(f"{place} answered {status}")


def _reason(error: httpx.HTTPError) -> str:
    """What went wrong on the way. Only the type: messages can hold the URL."""
    if isinstance(error, httpx.ConnectError):
        return "no connection"
    return "the connection was broken off" if isinstance(error, httpx.RemoteProtocolError) else type(error).__name__
