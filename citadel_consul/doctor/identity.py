"""Who one is here: which Consul, which node, which stack, which token. Nothing of it is a secret."""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.config import options
from citadel_consul.config.settings import Settings
from citadel_consul.consul.agent import AgentSelf
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.identity import Token
from citadel_consul.doctor.abilities import Ability, abilities_of
from citadel_consul.errors import ConsulRefused, PermissionDenied
from citadel_consul.store import documents
from citadel_consul.store.documents import LeaderRecord, UndecodableError
from citadel_consul.store.keys import Keys


@dataclass(frozen=True, slots=True)
class WhoAmI:
    """The answer of ``citadel whoami``. ``consul`` is None where the token may not see the agent.

    ``acls``: whether Consul controls access. ``token`` is None without a token of one's own, or if it cannot be told;
    ``token_origin`` says where the one in use was given. ``leader`` and ``epoch`` are None if nobody leads.
    """

    address: str
    consul: AgentSelf | None
    node: str
    stack: str
    leader: LeaderRecord | None
    epoch: int | None
    acls: bool
    token: Token | None
    token_origin: str
    refusal: str
    abilities: tuple[Ability, ...]


async def who_am_i(client: ConsulClient, settings: Settings, stack: str) -> WhoAmI:
    """Ask Consul who asks. What the token may not see is left out, and with an empty ``stack`` what is about one.

    Raises ConsulUnavailable.
    """
    agent = await agent_of(client)
    leader, epoch = await _leader(client, stack) if stack else (None, None)
    refusal, acls, token = "", True, None
    abilities: tuple[Ability, ...] = ()
    try:
        token = await client.token_self()
        acls = token is not None
    except ConsulRefused as error:
        refusal = str(error)
    try:
        if stack:
            abilities = await abilities_of(client, stack, settings.node, agent.node if agent else settings.node)
    except PermissionDenied as error:
        refusal = refusal or str(error)
    return WhoAmI(
        address=str(client.address),
        consul=agent,
        node=settings.node,
        stack=stack,
        leader=leader,
        epoch=epoch,
        acls=acls,
        token=token,
        token_origin=_origin(settings),
        refusal=refusal,
        abilities=abilities,
    )


async def agent_of(client: ConsulClient) -> AgentSelf | None:
    """The Consul agent that answers; None where the token may not see it."""
    try:
        return await client.agent_self()
    except PermissionDenied:
        return None


async def _leader(client: ConsulClient, stack: str) -> tuple[LeaderRecord | None, int | None]:
    try:
        entry = await client.kv_get(Keys(stack).leader)
        if entry is None or entry.session is None:
            return None, None
        return documents.LEADER.decode(entry.value), entry.modify_index
    except (PermissionDenied, UndecodableError):
        return None, None


def _origin(settings: Settings) -> str:
    """Where the token that is in use was given; empty without one."""
    token = settings.consul.read_token()
    if token is None:
        return ""
    option = options.CONSUL_TOKEN if settings.consul.token_file is None else options.CONSUL_TOKEN_FILE
    return next((row.origin for row in settings.origins() if row.name == option.name), "")
