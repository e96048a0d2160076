from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
from collections.abc import Callable

import httpx
import pytest
from consul import base

from citadel_consul.consul.address import ConsulAddress
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.nouns import API
from citadel_consul.consul.transaction import TxnOp, check_session, get, set_key
from citadel_consul.consul.transport import HttpxTransport, answer_seconds
from citadel_consul.errors import (
    CitadelError,
    Conflict,
    ConsulRefused,
    ConsulUnavailable,
    InvalidInput,
    LeadershipLost,
    NotFound,
    PermissionDenied,
)

TOKEN = "5f9c1b2e-the-secret"
LEFT_OUT = {"acl", "config", "connect", "discovery_chain"}
Handler = Callable[[httpx.Request], httpx.Response]


def client_over(handler: Handler, token: str | None = None) -> ConsulClient:
    address = ConsulAddress(token=token)
    return ConsulClient(address, transport=HttpxTransport(address, transport=httpx.MockTransport(handler)))


def answering(status: int, body: str = "", headers: dict[str, str] | None = None) -> ConsulClient:
    return client_over(lambda _: httpx.Response(status, text=body, headers=headers))


def raising(error: BaseException) -> ConsulClient:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return client_over(handler)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, ConsulRefused),
        (400, ConsulRefused),
        (401, PermissionDenied),
        (403, PermissionDenied),
        (405, ConsulRefused),
        (408, ConsulUnavailable),
        (413, ConsulRefused),
        (429, ConsulUnavailable),
        (500, ConsulUnavailable),
        (502, ConsulUnavailable),
        (503, ConsulUnavailable),
        (504, ConsulUnavailable),
    ],
)
async def test_a_status_becomes_the_error_that_says_whether_a_retry_can_help(
    status: int, expected: type[CitadelError]
) -> None:
    client = answering(status, "  what  Consul\nsays ")
    for call in (client.kv_get("a"), client.kv_put("a", b""), client.agent_services(), client.transact([get("a")])):
        with pytest.raises(CitadelError, match="what Consul says") as caught:
            await call
        assert type(caught.value) is expected
        if isinstance(caught.value, ConsulRefused):
            assert caught.value.status == status


async def test_a_404_means_what_the_endpoint_means_by_it() -> None:
    client = answering(404, headers={"X-Consul-Index": "7"})
    assert await client.kv_get("a") is None
    assert (await client.kv_list("a")).value == ()
    assert (await client.kv_list("a")).index == 7
    assert await client.session_renew("s") is False
    await client.deregister_service("a")
    await client.deregister_check("a")
    with pytest.raises(NotFound):
        await client.service_maintenance("a", True)
    with pytest.raises(NotFound):
        await client.check_update("a", "passing")


async def test_a_404_of_some_other_server_is_not_an_empty_store() -> None:
    client = answering(404, "<html>no such page</html>")
    with pytest.raises(ConsulUnavailable, match="cannot be read as Consul's"):
        await client.kv_get("a")
    with pytest.raises(ConsulUnavailable):
        await client.kv_list("a")


@pytest.mark.parametrize("body", ["", "<html>", "{}", "[{}]", '"text"', "null", '[{"Key": 1}]', "7", "[1]"])
async def test_an_answer_that_is_not_consuls_is_no_answer(body: str) -> None:
    client = answering(200, body, {"X-Consul-Index": "7"})
    with pytest.raises(ConsulUnavailable):
        await client.agent_self()


FOREIGN: list[BaseException] = [
    *(
        kind("foreign")
        for kind in vars(httpx).values()
        if inspect.isclass(kind) and issubclass(kind, httpx.RequestError)
    ),
    httpx.InvalidURL("foreign"),
    httpx.StreamError("foreign"),
    httpx.StreamClosed(),
    OSError("foreign"),
    ConnectionResetError(),
    TimeoutError(),
    ssl.SSLError("foreign"),
    UnicodeError("foreign"),
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda error: type(error).__name__)
async def test_no_error_of_the_http_library_escapes(foreign: BaseException) -> None:
    client = raising(foreign)
    for call in (client.kv_get("a"), client.kv_put("a", b""), client.status_leader(), client.session_create("x")):
        with pytest.raises(CitadelError):
            await call


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 409, 418, 429, 500, 503])
@pytest.mark.parametrize("body", ["", "true", "[]", "{}", "garbage"])
async def test_no_error_of_python_consul_escapes_whatever_the_answer(status: int, body: str) -> None:
    client = answering(status, body)
    methods = [
        client.kv_get("a"),
        client.kv_list("a"),
        client.kv_keys("a"),
        client.kv_put("a", b"", cas=1),
        client.kv_put("a", b"", acquire="s"),
        client.kv_delete("a"),
        client.kv_delete_prefix("a"),
        client.transact([set_key("a", b"")]),
        client.session_create("n"),
        client.session_renew("s"),
        client.session_destroy("s"),
        client.session_info("s"),
        client.agent_self(),
        client.register_service({"Name": "a"}),
        client.deregister_service("a"),
        client.agent_services(),
        client.agent_checks(),
        client.check_update("a", "passing"),
        client.register_check({"Name": "a"}),
        client.deregister_check("a"),
        client.service_maintenance("a", True),
        client.node_maintenance(True),
        client.health_state("any"),
        client.health_service("a"),
        client.catalog_services(),
        client.catalog_nodes(),
        client.node_services("a"),
        client.status_leader(),
        client.event_fire("a"),
    ]
    for method in methods:
        try:
            await method
        except CitadelError:
            continue


async def test_cancellation_is_not_translated() -> None:
    with pytest.raises(asyncio.CancelledError):
        await raising(asyncio.CancelledError()).kv_get("a")


async def test_an_answer_that_trickles_in_is_late_as_a_whole() -> None:
    async def trickle(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        return httpx.Response(200)

    address = ConsulAddress()
    transport = HttpxTransport(
        address,
        transport=httpx.MockTransport(trickle),
        connect_timeout_seconds=0.0,
        read_timeout_seconds=0.0,
    )
    with pytest.raises(ConsulUnavailable, match="in time"):
        await ConsulClient(address, transport=transport).kv_get("a")


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ([], 10),
        ([("wait", "60s")], 10),
        ([("index", 7), ("wait", "32s")], 32 + 2 + 10),
        ([("index", 7), ("wait", "1m20s")], 80 + 5 + 10),
        ([("index", 7), ("wait", "1600ms")], 1.6 + 0.1 + 10),
        ([("index", 7)], 300 + 18.75 + 10),
        ([("index", 7), ("wait", "24h")], 600 + 37.5 + 10),
    ],
)
def test_a_blocking_query_may_answer_as_late_as_consul_does(query: list[tuple[str, object]], seconds: float) -> None:
    assert answer_seconds(query, 10.0) == pytest.approx(seconds)


async def test_every_request_carries_its_time_outs() -> None:
    seen: list[dict[str, float]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return httpx.Response(200, text="[]", headers={"X-Consul-Index": "7"})

    client = client_over(handler)
    await client.kv_list("a/")
    await client.kv_list("a/", 7, 16)
    assert seen[0] == {"connect": 2.0, "pool": 2.0, "read": 10.0, "write": 10.0}
    assert seen[1]["read"] == 27.0


async def test_the_token_travels_in_the_header_alone_and_shows_in_no_log_or_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(403, text="Permission denied")

    client = client_over(handler, TOKEN)
    errors = []
    for call in (client.kv_get("a"), client.kv_put("a", b"x"), client.agent_self(), client.transact([get("a")])):
        with pytest.raises(PermissionDenied) as caught:
            await call
        errors.append(f"{caught.value!r} {caught.value}")
    assert all(request.headers["X-Consul-Token"] == TOKEN for request in seen)
    assert all(TOKEN not in str(request.url) for request in seen)
    assert TOKEN not in caplog.text + "".join(errors) + repr(client)


async def test_another_token_shares_the_pool_and_no_token_sends_none() -> None:
    seen: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("X-Consul-Token"))
        return httpx.Response(200, text='"127.0.0.1:8300"' if "status" in request.url.path else "true")

    client = client_over(handler, TOKEN)
    async with client.with_token("theirs") as other, client.with_token(None) as nobody:
        await other.kv_put("a", b"")
        await nobody.kv_put("a", b"")
    await client.kv_put("a", b"")
    assert seen == ["theirs", None, TOKEN]
    with pytest.raises(InvalidInput):
        client.with_token("not a token")


async def test_the_environment_has_no_second_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "https://[::1]:8501")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "of-the-environment")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, text="true")

    await client_over(handler, TOKEN).kv_put("a", b"")
    assert str(seen[0].url) == "http://127.0.0.1:8500/v1/kv/a"
    assert seen[0].headers["X-Consul-Token"] == TOKEN


@pytest.mark.filterwarnings("ignore::DeprecationWarning:consul")
def test_our_api_is_made_as_the_library_makes_its_own() -> None:
    class Complete(base.Consul):  # type: ignore[misc]
        def http_connect(self, *_: object) -> None:
            return None

    transport = HttpxTransport(ConsulAddress(), transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    assert set(vars(API(transport, None))) == set(vars(Complete())) - LEFT_OUT


async def test_a_datacenter_is_named_in_every_request() -> None:
    seen: list[httpx.URL] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url)
        body = "[]" if request.method == "GET" else "true"
        return httpx.Response(200, text=body, headers={"X-Consul-Index": "1"})

    address = ConsulAddress(datacenter="dc2")
    client = ConsulClient(address, transport=HttpxTransport(address, transport=httpx.MockTransport(handler)))
    await client.kv_list("a/")
    await client.kv_put("a", b"")
    await client.health_state("critical")
    await client.session_destroy("s")
    assert [url.params.get_list("dc") for url in seen] == [["dc2"]] * 4


async def test_a_closed_client_says_so() -> None:
    client = ConsulClient(ConsulAddress())
    await client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await client.kv_get("a")


@pytest.mark.parametrize("field", ["cacert", "client_cert"])
def test_a_certificate_that_cannot_be_loaded_is_bad_input(field: str) -> None:
    with pytest.raises(InvalidInput, match="Consul TLS"):
        ConsulClient(ConsulAddress(scheme="https", **{field: "/nowhere/ca.pem"}))  # type: ignore[arg-type]


REFUSED = '{"Results":null,"Errors":[%s]}'


@pytest.mark.parametrize(
    ("errors", "expected", "says"),
    [
        ('{"OpIndex":0,"What":"any words"}', LeadershipLost, "lock"),
        ('{"OpIndex":1,"What":"any words"}', Conflict, "key"),
        # 'failed session check' is Consul's word for a lost lock; here it is about another operation.
        ('{"OpIndex":1,"What":"failed session check"}', Conflict, "key"),
        ('{"OpIndex":0,"What":"x"},{"OpIndex":1,"What":"y"}', LeadershipLost, "lock"),
        ('{"OpIndex":1,"What":"Permission denied"}', PermissionDenied, "set key"),
        ('{"OpIndex":0,"What":"Permission denied: token lacks key:read"}', PermissionDenied, "check-session lock"),
    ],
)
async def test_a_refused_transaction_is_told_by_its_operation(
    errors: str, expected: type[CitadelError], says: str
) -> None:
    client = answering(409, REFUSED % errors)
    with pytest.raises(CitadelError, match=says) as caught:
        await client.transact([check_session("lock", "s"), set_key("key", b"")])
    assert type(caught.value) is expected


@pytest.mark.parametrize("operations", [[], [set_key(f"k{n}", b"") for n in range(65)], [set_key("", b"")]])
async def test_a_transaction_that_cannot_be_is_a_mistake_of_the_caller(operations: list[TxnOp]) -> None:
    with pytest.raises(ValueError, match="transaction"):
        await raising(AssertionError("sent")).transact(operations)


@pytest.mark.parametrize("key", ["/a", "a//b", "a/../b", ".", "a/./b", ""])
async def test_a_key_that_would_name_another_one_is_a_mistake_of_the_caller(key: str) -> None:
    client = raising(AssertionError("sent"))
    for call in (client.kv_put(key, b""), client.kv_delete(key), client.kv_delete_prefix(key)):
        with pytest.raises(ValueError, match="not a key"):
            await call


async def test_what_is_too_large_is_refused_before_it_is_sent() -> None:
    client = raising(AssertionError("sent"))
    with pytest.raises(ConsulRefused) as value:
        await client.kv_put("a", bytes(512 * 1024 + 1))
    with pytest.raises(ConsulRefused) as transaction:
        await client.transact([set_key("a", bytes(200_000)), set_key("b", bytes(200_000))])
    assert (value.value.status, transaction.value.status) == (413, 413)
