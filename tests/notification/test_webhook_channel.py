"""Posting to webhooks: what is sent, what each answer means, and that no secret gets out."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from incidents import notice
from receiver import Receiver, dead_url

from citadel_consul.config.receivers import EVERY_TRANSITION, WebhookReceiver
from citadel_consul.errors import CitadelError, InvalidInput, ReceiverRefused, ReceiverUnavailable
from citadel_consul.notification.webhook import WebhookChannel

SECRET = "s3cret"


@asynccontextmanager
async def channel(url: str | None = None, *directories: Path, **fields: Any) -> AsyncIterator[WebhookChannel]:
    receiver = WebhookReceiver(name="hook", when=EVERY_TRANSITION, **{"url": url, "timeout_seconds": 5.0, **fields})
    made = WebhookChannel(receiver, directories)
    try:
        yield made
    finally:
        await made.aclose()


async def test_a_notice_is_posted_as_json_with_an_id_by_which_doubles_are_told(receiver: Receiver) -> None:
    async with channel(receiver.url, template="slack") as hook:
        await hook.deliver(notice())
    (request,) = receiver.requests
    assert request.path == "/hooks/s3cret"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == notice().id
    assert request.headers["user-agent"].startswith("citadel/")
    assert request.json["text"] == notice().title


async def test_tokens_and_headers_come_from_files_that_are_read_each_time(receiver: Receiver, tmp_path: Path) -> None:
    token, key = tmp_path / "token", tmp_path / "key"
    token.write_text("first\n")
    key.write_text("k\n")
    async with channel(receiver.url, token_file=token, headers={"X-Key": key, "X-Team": "data"}) as hook:
        await hook.deliver(notice())
        token.write_text("second\n")
        await hook.deliver(notice())
    assert [request.headers["authorization"] for request in receiver.requests] == ["Bearer first", "Bearer second"]
    assert {request.headers["x-key"] for request in receiver.requests} == {"k"}
    assert {request.headers["x-team"] for request in receiver.requests} == {"data"}


async def test_the_url_can_come_from_a_file(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{receiver.url}\n")
    async with channel(url_file=tmp_path / "url") as hook:
        await hook.deliver(notice())
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, None),
        (204, None),
        (301, ReceiverRefused),
        (307, ReceiverRefused),
        (400, ReceiverRefused),
        (401, ReceiverRefused),
        (404, ReceiverRefused),
        (408, ReceiverUnavailable),
        (413, ReceiverRefused),
        (429, ReceiverUnavailable),
        (500, ReceiverUnavailable),
        (503, ReceiverUnavailable),
    ],
)
async def test_the_status_says_whether_trying_again_can_help(
    receiver: Receiver, status: int, expected: type[CitadelError] | None
) -> None:
    receiver.answers = [status]
    async with channel(receiver.url) as hook:
        if expected is None:
            await hook.deliver(notice())
        else:
            with pytest.raises(expected, match=f"answered {status}"):
                await hook.deliver(notice())
    assert len(receiver.requests) == 1, "a redirect is not followed"


async def test_a_receiver_that_hangs_is_given_up_after_its_time(receiver: Receiver) -> None:
    receiver.hang = True
    async with channel(receiver.url, timeout_seconds=0.2) as hook:
        began = time.monotonic()
        with pytest.raises(ReceiverUnavailable, match=r"did not answer within 0\.2 s"):
            await hook.deliver(notice())
        assert time.monotonic() - began < 2.0


async def test_a_receiver_that_is_not_there_can_come_back() -> None:
    with dead_url() as url:
        async with channel(url) as hook:
            with pytest.raises(ReceiverUnavailable, match="no connection"):
                await hook.deliver(notice())


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


async def _nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"\x00\x01 this is no HTTP\r\n\r\n")
    writer.close()


async def _cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.close()


async def _trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One byte at a time, so that no single read ever times out."""
    try:
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("serve", [_nonsense, _cut, _trickle])
async def test_whatever_a_receiver_does_no_foreign_error_comes_out_and_it_ends_in_time(serve: Serve) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, channel(f"http://127.0.0.1:{port}/{SECRET}", timeout_seconds=0.5) as hook:
        began = time.monotonic()
        with pytest.raises(ReceiverUnavailable):
            await hook.deliver(notice())
        assert time.monotonic() - began < 3.0


async def test_a_receiver_without_a_certificate_that_can_be_verified_is_not_told(tmp_path: Path) -> None:
    """TLS is spoken to a server that shows none."""
    server = await asyncio.start_server(_nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, channel(f"https://127.0.0.1:{port}/{SECRET}") as hook:
        with pytest.raises(ReceiverUnavailable) as caught:
            await hook.deliver(notice())
    assert not isinstance(caught.value, ssl.SSLError)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "one line"),
        (b"a\nb", "one line"),
        (b"\xff", "not ASCII"),
        (b"gopher://h", "gopher"),
    ],
)
async def test_a_url_file_that_cannot_be_used_is_refused_at_once(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "url"
    if content is not None:
        path.write_bytes(content)
    async with channel(url_file=path) as hook:
        with pytest.raises(ReceiverRefused, match=message):
            await hook.deliver(notice())


async def test_neither_url_nor_token_is_logged_or_part_of_an_error(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    token = tmp_path / "token"
    token.write_text("t0ken")
    texts = []
    with dead_url() as dead:
        for url, answers in ((receiver.url, [200]), (receiver.url, [404]), (receiver.url, [500]), (dead, [])):
            receiver.answers = answers
            async with channel(url, token_file=token) as hook:
                try:
                    await hook.deliver(notice())
                except CitadelError as error:
                    texts += [str(error), repr(error), repr(error.__cause__)]
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("citadel")]
    assert len(texts) == 9
    assert not [text for text in (*texts, *ours) if SECRET in text or "t0ken" in text]


async def test_a_broken_template_is_found_when_the_channel_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "notification"
    folder.mkdir()
    (folder / "late.json.j2").write_text('{% if notice.transition == "closed" %}oops{% else %}{}{% endif %}')
    with pytest.raises(InvalidInput, match="not JSON"):
        async with channel("http://127.0.0.1:1/", tmp_path, template="late"):
            pass
