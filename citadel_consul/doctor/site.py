"""What every examination works with."""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.config.settings import Settings
from citadel_consul.consul.agent import AgentSelf
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.snapshot import Defaults


@dataclass(frozen=True, slots=True)
class Site:
    """One Consul, one stack in it, and the settings of this machine. ``agent`` is None if the token may not see it."""

    client: ConsulClient
    settings: Settings
    stack: str
    defaults: Defaults
    agent: AgentSelf | None = None
