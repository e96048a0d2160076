"""A request that is unusually late goes a second way: what each of both may do, without a network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from discovery_instances import instance

from citadel_consul.consul.address import parse_address
from citadel_consul.discovery.balancer import Balancer
from citadel_consul.discovery.failures import DeadlineExceeded
from citadel_consul.discovery.naming import ServiceName
from citadel_consul.discovery.pace import SHORTEST_SECONDS
from citadel_consul.discovery.resolver import Resolver
from citadel_consul.discovery.transport import ConsulTransport
from citadel_consul.discovery.view import View

WEB = "http://web.consul/"


class Known(Resolver):
    """Knows one service, and needs no Consul for it."""

    def __init__(self, *ports: int) -> None:
        super().__init__(parse_address("127.0.0.1:1"))
        balancer = Balancer(draw=lambda: 0.0)  # so that of those with equal load the first is taken
        instances = tuple(instance(port) for port in ports)
        balancer.update(lambda roster, now: roster.told(instances, now, after_outage=False))
        self.web = View(ServiceName("web"), balancer)
        self.web.pace.note(0.001)  # it was fast so far
        self.web.live = True

    def view(self, name: ServiceName) -> View:
        return {ServiceName("web"): self.web}[name]


class Stream(httpx.AsyncByteStream):
    def __init__(self) -> None:
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"piece"

    async def aclose(self) -> None:
        self.closed = True


class Scripted(httpx.AsyncBaseTransport):
    """What each port does: ``answer``, ``refuse``, ``stream``, ``hang`` for ever or be ``silent`` until the time-out;
    or ``wait`` or ``starve`` the event loop, and then one of these.
    """

    def __init__(self, **behaviours: str) -> None:
        self.behaviours = {int(port.removeprefix("at")): words for port, words in behaviours.items()}
        self.asked: list[int] = []
        self.go_on = asyncio.Event()
        self.given_up: list[int] = []
        self.streams: list[Stream] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        port = request.url.port or 0
        self.asked.append(port)
        for behaviour in self.behaviours[port].split():
            if behaviour == "refuse":
                raise httpx.ConnectError(f"{port} refuses")
            if behaviour == "silent":
                await asyncio.sleep(request.extensions["timeout"]["read"])
                raise httpx.ReadTimeout("silence")
            if behaviour == "stream":
                self.streams.append(Stream())
                return httpx.Response(200, stream=self.streams[-1])
            if behaviour == "starve":
                time.sleep(3 * SHORTEST_SECONDS)  # noqa: ASYNC251  # it is the event loop that is to be held up
            if behaviour in ("wait", "hang"):
                try:
                    await (self.go_on if behaviour == "wait" else asyncio.Event()).wait()
                except asyncio.CancelledError:
                    self.given_up.append(port)
                    raise
        return httpx.Response(200, text=str(port))


def client_of(resolver: Known, over: Scripted, deadline_seconds: float | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=ConsulTransport(resolver, over=over, deadline_seconds=deadline_seconds))


async def test_a_late_answer_is_not_waited_for_if_another_instance_answers() -> None:
    resolver, over = Known(1, 2), Scripted(at1="hang", at2="answer")
    async with client_of(resolver, over) as client:
        assert (await client.get(WEB)).text == "2"
    assert over.asked == [1, 2]
    assert over.given_up == [1]
    assert resolver.web.balancer._loads == {}


async def test_an_instance_that_was_outrun_three_times_is_left_out() -> None:
    resolver, over = Known(1, 2), Scripted(at1="hang", at2="answer")
    async with client_of(resolver, over) as client:
        for _ in range(4):
            await client.get(WEB)
    assert over.asked == [1, 2, 1, 2, 1, 2, 2]


async def test_an_answer_in_usual_time_has_no_second_way() -> None:
    over = Scripted(at1="answer", at2="answer")
    async with client_of(Known(1, 2), over) as client:
        await client.get(WEB)
        await asyncio.sleep(0)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "a request's second way"]
    assert over.asked == [1]


async def test_the_first_way_may_still_be_the_first_to_answer() -> None:
    over = Scripted(at1="wait answer", at2="hang")
    async with client_of(Known(1, 2), over) as client, asyncio.TaskGroup() as group:
        request = group.create_task(client.get(WEB))
        await until(lambda: over.asked == [1, 2])
        over.go_on.set()
    assert request.result().text == "1"
    assert over.given_up == [2]


async def test_the_second_way_goes_on_when_the_first_fails_and_is_the_next_attempt() -> None:
    over = Scripted(at1="wait refuse", at2="wait answer")
    transport = ConsulTransport(Known(1, 2), over=over, attempts=2)
    async with httpx.AsyncClient(transport=transport) as client, asyncio.TaskGroup() as group:
        request = group.create_task(client.get(WEB))
        await until(lambda: over.asked == [1, 2])
        over.go_on.set()
    assert request.result().text == "2"
    assert over.asked == [1, 2]


async def test_the_first_way_goes_on_when_the_second_fails() -> None:
    over = Scripted(at1="wait answer", at2="refuse")
    transport = ConsulTransport(Known(1, 2), over=over, attempts=2)
    async with httpx.AsyncClient(transport=transport) as client, asyncio.TaskGroup() as group:
        request = group.create_task(client.get(WEB))
        await until(lambda: over.asked == [1, 2])
        over.go_on.set()
    assert request.result().text == "1"


async def test_when_both_ways_fail_the_error_is_that_of_the_first() -> None:
    over = Scripted(at1="wait refuse", at2="wait refuse")
    transport = ConsulTransport(Known(1, 2), over=over, attempts=2)
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(httpx.ConnectError, match="1 refuses"):
            async with asyncio.timeout(5):
                await asyncio.gather(client.get(WEB), after(lambda: over.asked == [1, 2], over.go_on))


async def test_the_second_way_turns_to_a_third_instance_when_the_second_refuses() -> None:
    over = Scripted(at1="hang", at2="refuse", at3="answer")
    async with client_of(Known(1, 2, 3), over) as client:
        assert (await client.get(WEB)).text == "3"


async def test_two_ways_that_hang_end_with_the_deadline() -> None:
    resolver, over = Known(1, 2), Scripted(at1="hang", at2="hang")
    async with client_of(resolver, over, deadline_seconds=0.3) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get(WEB)
    assert sorted(over.given_up) == [1, 2]
    assert resolver.web.balancer._loads == {}


async def test_a_caller_that_gives_up_ends_both_ways() -> None:
    resolver, over = Known(1, 2), Scripted(at1="hang", at2="hang")
    async with client_of(resolver, over) as client:
        asking = asyncio.ensure_future(client.get(WEB))
        await until(lambda: over.asked == [1, 2])
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert sorted(over.given_up) == [1, 2]
    assert resolver.web.balancer._loads == {}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_request_that_changes_something_never_goes_two_ways(method: str) -> None:
    over = Scripted(at1="silent", at2="answer")
    began = time.monotonic()
    async with client_of(Known(1, 2), over, deadline_seconds=4 * SHORTEST_SECONDS) as client:
        assert (await client.request(method, WEB, headers={"Idempotency-Key": "1"})).text == "2"
    assert time.monotonic() - began >= 2 * SHORTEST_SECONDS  # after the first attempt's half of the deadline


async def test_hedging_can_be_switched_off() -> None:
    over = Scripted(at1="hang", at2="answer")
    transport = ConsulTransport(Known(1, 2), over=over, hedging=False)
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4 * SHORTEST_SECONDS):
                await client.get(WEB)
    assert over.asked == [1]


async def test_a_lone_instance_is_not_asked_twice() -> None:
    over = Scripted(at1="hang")
    async with client_of(Known(1), over, deadline_seconds=4 * SHORTEST_SECONDS) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get(WEB)
    assert over.asked == [1]


async def test_second_ways_have_a_budget() -> None:
    resolver, over = Known(1, 2), Scripted(at1="hang", at2="hang")
    async with client_of(resolver, over, deadline_seconds=3 * SHORTEST_SECONDS) as client:
        answers = await asyncio.gather(*[client.get(WEB) for _ in range(60)], return_exceptions=True)
    assert all(isinstance(answer, DeadlineExceeded) for answer in answers)
    assert len(over.asked) == 60 + 10  # the reserve; what the requests themselves filled in was full already


async def test_an_answer_may_come_while_a_cancelled_task_cleans_up() -> None:
    over = Scripted(at1="wait answer", at2="answer")
    said: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            said.append((await client.get(WEB)).text)

    async with client_of(Known(1, 2), over) as client:
        working = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        working.cancel()
        await until(lambda: over.asked == [1])
        await asyncio.sleep(2 * SHORTEST_SECONDS)
        over.go_on.set()
        await asyncio.wait({working})
    assert said == ["1"]


async def test_a_streamed_answer_that_comes_too_late_is_closed() -> None:
    over = Scripted(at1="wait answer", at2="wait stream")
    async with client_of(Known(1, 2), over) as client, asyncio.TaskGroup() as group:
        request = group.create_task(client.get(WEB))
        await until(lambda: over.asked == [1, 2])
        over.go_on.set()  # both answer in the same turn of the loop
    assert request.result().text in ("1", "piece")
    assert all(stream.closed for stream in over.streams)


async def test_a_starved_event_loop_is_not_taken_for_a_late_answer() -> None:
    over = Scripted(at1="starve answer", at2="answer")
    async with client_of(Known(1, 2), over) as client:
        assert (await client.get(WEB)).text == "1"
    over = Scripted(at1="starve wait answer", at2="answer")
    async with client_of(Known(1, 2), over) as client, asyncio.TaskGroup() as group:
        request = group.create_task(client.get(WEB))
        await until(lambda: over.asked == [1])
        await asyncio.sleep(0)
        assert over.asked == [1]  # its time has come long ago, and begins anew
        over.go_on.set()
    assert request.result().text == "1"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is waited for says nothing when it comes
            await asyncio.sleep(0.001)


async def after(condition: Callable[[], bool], event: asyncio.Event) -> None:
    await until(condition)
    event.set()
