"""Steady traffic to a service: the processes of :mod:`shopper`, and their record when they are done."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from consul_process import ConsulProcess
from fleet import SERVICE
from record import Record
from shopper import Order

URL = f"http://{SERVICE}.consul/"
CLIENTS = 8
DEADLINE_SECONDS = 5.0
_PROGRAM = Path(__file__).with_name("shopper.py")
_LONGEST_LINE = 64 * 2**20


@asynccontextmanager
async def traffic(
    consul: ConsulProcess,
    record: Record,
    per_second: float,
    *,
    way: str = "library",
    clients: int = CLIENTS,
    processes: int = 4,
    methods: tuple[str, ...] = ("GET",),
) -> AsyncIterator[None]:
    """Have ``clients`` clients, of ``processes``, send ``per_second`` requests in total for the time of the block."""
    order = Order(
        way=way,
        url=URL,
        consul=consul.address,
        dns_port=consul.ports.dns,
        clients=clients // processes,
        per_second=per_second / processes,
        methods=list(methods),
        deadline_seconds=DEADLINE_SECONDS,
    )
    shoppers: list[Process] = []
    try:
        program = (sys.executable, str(_PROGRAM), order.text())
        while len(shoppers) < processes:
            shoppers.append(
                # Sessions of their own, because Linux shares cores among these first (autogroup).
                await asyncio.create_subprocess_exec(
                    *program, stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE, start_new_session=True
                )
            )
        for shopper in shoppers:
            await _said(shopper)
        yield
        async with asyncio.TaskGroup() as group:
            for shopper in shoppers:
                group.create_task(_finish(shopper, record))
    finally:
        for shopper in shoppers:
            if shopper.returncode is None:
                shopper.kill()
            await shopper.wait()


async def _finish(shopper: Process, record: Record) -> None:
    if shopper.stdin is not None:
        shopper.stdin.close()
    record.add(json.loads(await _said(shopper)))


async def _said(shopper: Process) -> bytes:
    if shopper.stdout is None or not (line := await shopper.stdout.readline()):
        raise AssertionError(f"a shopper has ended ({await shopper.wait()})")
    return line
