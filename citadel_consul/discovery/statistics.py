"""What following services has cost so far, for whoever operates a client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """The figures of one resolver.

    ``reconnects`` says for each service in use how often its watch has found Consul again after an outage;
    ``connections`` is how many connections to Consul were opened in all, ``watches`` how many blocking queries wait
    now.
    """

    reconnects: Mapping[str, int]
    connections: int
    watches: int
