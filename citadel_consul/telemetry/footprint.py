"""What a process of citadel takes of its machine, for Prometheus: memory, processor, descriptors, threads, tasks.

The names of the first three are those that Prometheus' own client gives to every process, so dashboards know them. Each
of these figures is flat over days in a process that is well: one that climbs is a leak, and says of what.
"""

from __future__ import annotations

import asyncio
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
        yield GaugeMetricFamily("citadel_tasks", "Tasks on its event loop.", value=float(len(asyncio.all_tasks())))
        yield GaugeMetricFamily("citadel_threads", "Threads of Python.", value=float(threading.active_count()))


def exposition() -> bytes:
    """The figures in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(Footprint())
    return generate_latest(registry)


def _of_the_kernel() -> Iterable[Metric]:
    found: Iterable[Metric] = ProcessCollector(registry=None).collect()
    return found
