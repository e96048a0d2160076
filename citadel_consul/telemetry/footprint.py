"""What a process of citadel takes of its machine, for Prometheus: memory, processor, descriptors, threads, tasks.

The names of the first three are those that Prometheus' own client gives to every process, so dashboards know them. Each
of these figures is flat over days in a process that is well: one that climbs is a leak, and says of what. Resident
memory tells it late, since an allocator gives little back; how many blocks are allocated tells it at once.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of :func:`exposition`."""


class Footprint(Collector):
    """The figures of this process; collect them on the thread of its event loop."""

    def collect(self) -> Iterator[Metric]:
        """The figures of this moment."""
        yield from _of_the_kernel()
        for name, text, value in (
            ("citadel_tasks", "Tasks on its event loop.", len(asyncio.all_tasks())),
            ("citadel_threads", "Threads of Python.", threading.active_count()),
            ("citadel_allocated_blocks", "Blocks of memory that Python's objects take.", sys.getallocatedblocks()),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))


def exposition() -> bytes:
    """The figures in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(Footprint())
    return generate_latest(registry)


def _of_the_kernel() -> Iterable[Metric]:
    found: Iterable[Metric] = ProcessCollector(registry=None).collect()
    return found
