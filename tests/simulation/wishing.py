"""The operator of a simulated site: asks for one thing after the other, each again until it is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from simulated_site import STACK, Site
from story import Happening

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import OnFailure, Stack
from citadel_consul.core.operation import Kind, Options
from citadel_consul.core.snapshot import Hold
from citadel_consul.errors import CitadelError, Conflict, NotFound, Refused
from citadel_consul.orchestrator.handover import request_handover
from citadel_consul.store.applying import read_difference, write_difference
from citadel_consul.store.holds import remove_hold, write_hold
from citadel_consul.store.requests import cancel, submit

NAME = "operator"
AGAIN_SECONDS = 0.5
KINDS = frozenset(str(kind) for kind in Kind)


class Operator:
    """See the module. ``requested`` are the identifiers of what was asked for and confirmed, oldest first."""

    def __init__(self, site: Site) -> None:
        self.requested: list[str] = []
        self._site = site
        self._wishes: asyncio.Queue[Happening] = asyncio.Queue()
        self._carry_out: dict[str, Callable[[ConsulClient, Happening], Awaitable[object]]] = {
            "cancel": self._cancel,
            "apply": self._apply,
            "hold": self._hold,
            "lift": self._lift,
            "hand-over": self._hand_over,
        }

    def does(self, what: str) -> bool:
        """Whether ``what`` is something that an operator does."""
        return what.partition("+")[0] in (KINDS | self._carry_out.keys())

    def wish(self, happening: Happening) -> None:
        """Have it done, after what was wished before."""
        self._wishes.put_nowait(happening)

    @property
    def idle(self) -> bool:
        """Whether everything was asked for."""
        return self._wishes.empty()

    async def run(self) -> None:
        """Work off what is wished, until cancelled."""
        client = self._site.client(self._site.operator.host, self._site.operator)
        while True:
            wish = await self._wishes.get()
            work = self._carry_out.get(wish.what, self._submit)
            while True:
                try:
                    await work(client, wish)
                except (NotFound, Refused):
                    break
                except CitadelError:
                    await asyncio.sleep(AGAIN_SECONDS)
                else:
                    break

    async def _submit(self, client: ConsulClient, wish: Happening) -> None:
        kind, *words = wish.what.split("+")
        options = Options(cascade="cascade" in words, rolling="rolling" in words, force="force" in words)
        if "rollback" in words:
            options = replace(options, on_failure=OnFailure.ROLLBACK)
        operation = await submit(client, self._site.keys, Kind(kind), [wish.target], options, requested_by=NAME)
        self.requested.append(operation.id)

    async def _cancel(self, client: ConsulClient, wish: Happening) -> None:
        del wish
        if self.requested:
            await cancel(client, self._site.keys, self.requested[-1], by=NAME)

    async def _apply(self, client: ConsulClient, wish: Happening) -> None:
        """Make the stack what its file says now."""
        layout = self._site.plan.layouts[int(wish.target)]
        stack = Stack(STACK, {spec.name: spec for spec in layout.services}, layout.edges)
        difference = await read_difference(client, stack, prune=True)
        await write_difference(client, difference)

    async def _hold(self, client: ConsulClient, wish: Happening) -> None:
        scope, _, name = wish.target.partition("/")
        until = time.time() + wish.seconds if wish.seconds else None
        await write_hold(client, self._site.keys, Hold(scope, name, by=NAME, until=until))

    async def _lift(self, client: ConsulClient, wish: Happening) -> None:
        scope, _, name = wish.target.partition("/")
        await remove_hold(client, self._site.keys, scope, name)

    async def _hand_over(self, client: ConsulClient, wish: Happening) -> None:
        try:
            await request_handover(client, STACK, wish.target, NAME)
        except Conflict as error:
            raise Refused(str(error)) from error
