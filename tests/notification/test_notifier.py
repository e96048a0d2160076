"""The notifier of one leadership, over a real Consul and its fence, with receivers that do what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from consul_process import ConsulSpace
from incidents import OPENED_AT, closed, frozen, incident

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.actions import WriteIncident
from citadel_consul.core.incident import Incident, IncidentState
from citadel_consul.core.model import ProcessBackend, RecoveryPolicy, ServiceSpec
from citadel_consul.core.notice import Notice, Transition
from citadel_consul.core.snapshot import Defaults
from citadel_consul.errors import LeadershipLost, ReceiverRefused, ReceiverUnavailable
from citadel_consul.notification.channel import Channel
from citadel_consul.orchestrator.fence import Fence
from citadel_consul.orchestrator.notifying import Notifier, Patience
from citadel_consul.orchestrator.outbox import KEPT, Outbox
from citadel_consul.orchestrator.writer import FencedWriter
from citadel_consul.store import documents
from citadel_consul.store.history import read_events
from citadel_consul.store.postings import DeliveryState, Posting, read_postings
from citadel_consul.store.reading import read_state
from citadel_consul.store.state import StackState

pytestmark = pytest.mark.consul

DELAY_SECONDS = Defaults().notice_delay_seconds
QUICK = Patience(first_seconds=0.001, longest_seconds=0.002)


@dataclass
class FakeChannel:
    """Keeps what it is given; raises ``failures`` first, one a delivery, and waits for ``gate``."""

    name: str = "hook"
    when: frozenset[Transition] = frozenset(Transition)
    failures: list[Exception] = field(default_factory=list)
    gate: asyncio.Event | None = None
    tried: int = 0
    told: list[Notice] = field(default_factory=list)

    async def deliver(self, notice: Notice) -> None:
        self.tried += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.told.append(notice)

    async def aclose(self) -> None:
        return

    @property
    def words(self) -> list[str]:
        return [str(notice.transition) for notice in self.told]


class Leadership:
    """A leader lock that is really held, and a state that knows what was written under it."""

    def __init__(self, client: ConsulClient, state: StackState, session: str, identity: str) -> None:
        self.client = client
        self.state = state
        fence = Fence(client, state.keys.leader, session)
        self.writer = FencedWriter(fence, self.state, epoch=7, identity=identity)
        self.identity = identity
        self.session = session
        self.notifier: Notifier | None = None
        self.age = DELAY_SECONDS
        """How long after the beginning of the incidents it is."""

    async def write(self, *incidents: Incident) -> None:
        """Write incidents as the control loop does, and ring."""
        actions = [WriteIncident(incident) for incident in incidents]
        await self.writer.commit(actions, OPENED_AT)
        if self.notifier is not None:
            self.notifier.take(actions)

    @asynccontextmanager
    async def notifying(self, *channels: Channel, patience: Patience = QUICK) -> AsyncIterator[None]:
        """The notifier at work for the time of the block."""
        outbox = Outbox(self.client, self.state.keys, self.writer)
        self.notifier = Notifier(
            outbox, self.state, self.writer, channels, identity=self.identity, wall=lambda: OPENED_AT + self.age,
            patience=patience,
        )  # fmt: skip
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.notifier.run())
            try:
                yield
            finally:
                task.cancel()
                self.notifier = None

    async def postings(self) -> list[Posting]:
        return await read_postings(self.client, self.state.keys)


Lead = Callable[..., Awaitable[Leadership]]


@pytest.fixture
async def lead(consul: ConsulSpace) -> AsyncIterator[Lead]:
    """Makes leaders: each takes the lock from the one before."""
    sessions: list[str] = []
    async with ConsulClient(parse_address(consul.address)) as client:

        async def make(identity: str = "o1") -> Leadership:
            for session in sessions:
                await client.session_destroy(session)
            session = await client.session_create(f"test-{identity}")
            sessions.append(session)
            state = await read_state(client, consul.stack, Defaults())
            assert await client.kv_put(state.keys.leader, b"{}", acquire=session)
            return Leadership(client, state, session, identity)

        yield make
        for session in sessions:
            await client.session_destroy(session)


async def until(condition: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(10):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not within 10 s: {what}")


async def until_settled(leader: Leadership, count: int = 1) -> list[Posting]:
    """Wait until ``count`` notices are posted and none is pending."""
    async with asyncio.timeout(10):
        while True:
            found = await leader.postings()
            if len(found) >= count and not any(posting.pending for posting in found):
                return found
            await asyncio.sleep(0.01)


async def until_posted(leader: Leadership, count: int) -> None:
    async with asyncio.timeout(10):
        while True:
            if len(await leader.postings()) >= count:
                return
            await asyncio.sleep(0.01)


async def test_an_incident_is_told_when_it_opens_and_when_it_ends_to_everybody(lead: Lead) -> None:
    leader, one, other = await lead(), FakeChannel("one"), FakeChannel("other")
    async with leader.notifying(one, other):
        await leader.write(incident(state=IncidentState.OPEN))
        await until(lambda: one.told and other.told, "the beginning")
        await leader.write(incident(state=IncidentState.RECOVERING, waits_for="its next attempt"))
        await leader.write(closed())
        found = await until_settled(leader, 2)
    assert one.words == other.words == ["opened", "closed"]
    assert [posting.notice.transition for posting in found] == ["opened", "closed"]
    assert {d.state for posting in found for d in posting.receivers.values()} == {DeliveryState.DELIVERED}


async def test_what_was_written_before_the_leadership_is_told_by_it(lead: Lead) -> None:
    leader, hook = await lead(), FakeChannel()
    await leader.write(incident())
    async with leader.notifying(hook):
        await until_settled(leader)
    assert hook.words == ["opened"]


async def test_what_one_leader_delivered_the_next_does_not(lead: Lead) -> None:
    first, hook = await lead(), FakeChannel()
    async with first.notifying(hook):
        await first.write(incident())
        await until_settled(first)
    second = await lead("o2")
    async with second.notifying(hook):
        await second.write(closed())
        await until_settled(second, 2)
    assert hook.words == ["opened", "closed"]
    assert [notice.leader for notice in hook.told] == ["o1", "o2"]


async def test_what_one_leader_could_not_deliver_the_next_does_although_the_incident_is_over(lead: Lead) -> None:
    first, away = await lead(), FakeChannel(gate=asyncio.Event())
    async with first.notifying(away):
        await first.write(incident())
        await until(lambda: away.tried, "the first try")
        await first.write(closed())
        await until_posted(first, 2)
    second, hook = await lead("o2"), FakeChannel()
    async with second.notifying(hook):
        await until_settled(second, 2)
    assert hook.words == ["opened", "closed"]


async def test_the_next_incident_of_a_service_takes_nothing_away_from_the_last(lead: Lead) -> None:
    leader, away = await lead(), FakeChannel(gate=asyncio.Event())
    async with leader.notifying(away):
        await leader.write(incident())
        await until(lambda: away.tried, "the first try")
        await leader.write(closed())
        await until_posted(leader, 2)
        await leader.write(incident(id="20250715T150000000000-qdrant"))
        await until_posted(leader, 3)
        assert away.gate is not None
        away.gate.set()
        await until_settled(leader, 3)
    assert [notice.id.partition("/")[2] for notice in away.told] == ["opened", "closed", "opened"]
    assert len({notice.incident.id for notice in away.told}) == 2


async def test_a_deposed_leader_notes_nothing_and_learns_that_it_is_deposed(lead: Lead) -> None:
    first, hook = await lead(), FakeChannel(gate=asyncio.Event())
    with pytest.RaisesGroup(pytest.RaisesGroup(LeadershipLost)):
        async with first.notifying(hook):
            await first.write(incident())
            await until(lambda: hook.tried, "the first try")
            second = await lead("o2")
            assert hook.gate is not None
            hook.gate.set()
            await asyncio.sleep(10)
    (posting,) = await second.postings()
    assert posting.pending


async def test_a_receiver_that_is_away_is_tried_again_and_told_in_order(lead: Lead) -> None:
    away = [ReceiverUnavailable("no connection") for _ in range(5)]
    leader, hook = await lead(), FakeChannel(failures=[*away])
    async with leader.notifying(hook):
        await leader.write(incident())
        await until(lambda: hook.tried, "the first try")
        await leader.write(closed())
        await until_settled(leader, 2)
    assert hook.words == ["opened", "closed"]
    assert hook.tried == 7


async def test_a_receiver_that_hangs_keeps_no_other_from_being_told(lead: Lead) -> None:
    leader, stuck, prompt = await lead(), FakeChannel("stuck", gate=asyncio.Event()), FakeChannel("prompt")
    async with leader.notifying(stuck, prompt):
        await leader.write(incident())
        await until(lambda: prompt.told, "the beginning")
        await leader.write(closed())
        await until(lambda: prompt.words == ["opened", "closed"], "the prompt one")
    assert stuck.told == []


async def test_what_a_receiver_refuses_is_not_tried_again_and_stands_in_the_history(lead: Lead) -> None:
    leader, hook = await lead(), FakeChannel(failures=[ReceiverRefused("https://h/… answered 404")])
    async with leader.notifying(hook):
        await leader.write(incident())
        (posting,) = await until_settled(leader)
        await leader.write(closed())
        await until_settled(leader, 2)  # the next delivery comes after the word on the last
        events = await read_events(leader.client, leader.state.keys)
    assert hook.tried == 2
    assert posting.receivers["hook"].error == "https://h/… answered 404"
    (event,) = events
    assert (event.kind, event.service) == ("notification-failed", "qdrant")
    assert "answered 404" in event.message


async def test_a_notice_is_given_up_when_it_is_old(lead: Lead) -> None:
    leader = await lead()
    hook = FakeChannel(failures=[ReceiverUnavailable("away") for _ in range(10_000)])
    async with leader.notifying(hook, patience=Patience(0.001, 0.002, give_up_seconds=0.05)):
        await leader.write(incident())
        (posting,) = await until_settled(leader)
    assert posting.receivers["hook"].state is DeliveryState.FAILED
    assert hook.tried > 1


async def test_a_receiver_hears_only_what_it_wants_and_no_end_without_a_beginning(lead: Lead) -> None:
    pager = FakeChannel("pager", when=frozenset({Transition.GAVE_UP, Transition.CLOSED}))
    leader, chat = await lead(), FakeChannel("chat")
    async with leader.notifying(pager, chat):
        await leader.write(incident())
        await until_settled(leader)
        await leader.write(closed())
        await until_settled(leader, 2)
        again = "20250715T150000000000-qdrant"
        await leader.write(incident(id=again))
        await until_settled(leader, 3)
        await leader.write(incident(state=IncidentState.GAVE_UP, attempts=3, id=again))
        await until_settled(leader, 4)
        await leader.write(closed(id=again))
        await until_settled(leader, 5)
    assert pager.words == ["gave_up", "closed"]
    assert chat.words == ["opened", "closed", "opened", "gave_up", "closed"]


async def test_when_too_much_fails_at_once_there_is_one_notice_and_not_one_for_each(lead: Lead) -> None:
    leader, hook = await lead(), FakeChannel()
    stack = frozen()
    swallowed = [incident(f"s{n}", IncidentState.OPEN, part_of=stack.id) for n in range(8)]
    async with leader.notifying(hook):
        await leader.write(stack, *swallowed)
        await until(lambda: hook.told, "the notice of the stack")
        await leader.write(*(replace(i, state=IncidentState.CLOSED, closed_at=OPENED_AT) for i in swallowed))
        await leader.write(replace(stack, state=IncidentState.CLOSED, closed_at=OPENED_AT + 9, outcome="op went on"))
        await until_settled(leader, 2)
    assert [notice.subject for notice in hook.told] == [None, None]
    assert hook.words == ["opened", "closed"]


async def test_what_turns_out_to_be_part_of_another_incident_is_told_with_that(lead: Lead) -> None:
    leader, hook = await lead(), FakeChannel()
    api, db = incident("api", IncidentState.OPEN), incident("db", IncidentState.OPEN, affected=("api",))
    leader.age = DELAY_SECONDS - 0.2
    async with leader.notifying(hook):
        await leader.write(api)
        await leader.write(db, replace(api, part_of=db.id))
        leader.age = DELAY_SECONDS
        await until_settled(leader)
        await leader.write(*(replace(i, state=IncidentState.CLOSED, closed_at=OPENED_AT) for i in (api, db)))
        await until_settled(leader, 2)
    assert [(notice.subject, str(notice.transition)) for notice in hook.told] == [("db", "opened"), ("db", "closed")]
    assert hook.told[0].incident.affected == ("api",)


async def test_a_beginning_is_told_when_its_time_has_come_although_nothing_more_happens(lead: Lead) -> None:
    leader, hook = await lead(), FakeChannel()
    leader.age = DELAY_SECONDS - 0.05
    async with leader.notifying(hook):
        await leader.write(incident())
        leader.age = DELAY_SECONDS
        await until(lambda: hook.told, "the beginning")
    assert hook.words == ["opened"]


async def test_what_is_over_before_it_was_told_is_not_told(lead: Lead) -> None:
    leader, hook = await lead(), FakeChannel()
    leader.age = 0.0
    async with leader.notifying(hook):
        await leader.write(incident())
        await leader.write(closed())
        leader.age = DELAY_SECONDS
        await leader.write(incident("other"))
        await until(lambda: hook.told, "the beginning of another")
    assert [notice.subject for notice in hook.told] == ["other"]


@pytest.mark.parametrize(
    ("policy", "held", "automatic"),
    [(RecoveryPolicy(), False, True), (RecoveryPolicy(enabled=False), False, False), (RecoveryPolicy(), True, False)],
)
async def test_a_notice_says_whether_citadel_does_something_by_itself(
    lead: Lead, policy: RecoveryPolicy, held: bool, automatic: bool
) -> None:
    leader, hook = await lead(), FakeChannel()
    spec = ServiceSpec("qdrant", "database", ("n1",), ProcessBackend(("x",)), critical=False, recovery=policy)
    await leader.client.kv_put(leader.state.keys.spec("qdrant"), documents.SPEC.encode(spec))
    if held:
        await leader.client.kv_put(leader.state.keys.hold("service", "qdrant"), b'{"by": "op"}')
    leader = await lead("o2")
    async with leader.notifying(hook):
        await leader.write(incident())
        await until_settled(leader)
    (notice,) = hook.told
    assert notice.automatic is automatic
    assert notice.calls_for_action is not automatic
    assert not notice.critical


async def test_the_outbox_is_bounded_and_what_is_told_of_an_unfinished_incident_stays(lead: Lead) -> None:
    leader, hook = await lead(), FakeChannel()
    stays = incident("stays")
    async with leader.notifying(hook):
        await leader.write(stays)
        await until_settled(leader)
        for number in range(KEPT // 2 + 20):
            name = f"20250716T{number:018d}-qdrant"
            await leader.write(incident(id=name))
            await until(lambda count=1 + 2 * number: len(hook.told) > count, "the beginning")  # type: ignore[misc]
            await leader.write(closed(id=name))
            await until(lambda count=2 + 2 * number: len(hook.told) > count, "the end")  # type: ignore[misc]
        await leader.write(replace(stays, state=IncidentState.CLOSED, closed_at=OPENED_AT + 99))
        await until(lambda: hook.words[-1] == "closed" and hook.told[-1].subject == "stays", "its end")
        found = await until_settled(leader)
    assert KEPT - 3 <= len(found) <= KEPT + 3
