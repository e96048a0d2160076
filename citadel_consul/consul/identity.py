"""Who the caller is to Consul, and what Consul lets it do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from citadel_consul.consul.api import Endpoint, document
from citadel_consul.consul.transport import Response
from citadel_consul.errors import ConsulRefused, NotFound, PermissionDenied

_NO_ACLS: Final = 401
"""How Consul answers questions about tokens while its access control is off; it refuses a token with 403."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as Consul knows it, without its secret. ``accessor`` is its public name."""

    accessor: str
    description: str
    policies: tuple[str, ...]
    roles: tuple[str, ...]
    expires: str | None


@dataclass(frozen=True, slots=True)
class Right:
    """One thing to be allowed: ``access`` (``read``, ``write``, ``list``) to a ``resource`` (``key``, ``service``, …).

    ``segment`` is the name that a rule would match: a key, a service, a node; empty for resources without names.
    """

    resource: str
    access: str
    segment: str = ""

    def __str__(self) -> str:
        return (
            f'{self.resource}:{self.access} on "{self.segment}"' if self.segment else f"{self.resource}:{self.access}"
        )


class Identity(Endpoint):
    """Methods on the caller's own token."""

    async def token_self(self) -> Token | None:
        """The token that requests are made with; ``None`` if Consul's access control is off.

        Raises ``PermissionDenied`` for a token that Consul does not know, and where there is none at all.
        """
        try:
            return await self._read(_token, "/v1/acl/token/self")
        except PermissionDenied as error:
            if error.status == _NO_ACLS:
                return None
            raise

    async def allowed(self, rights: Sequence[Right]) -> Mapping[Right, bool] | None:
        """Which of ``rights`` the token has; ``None`` where this Consul cannot be asked.

        Without access control everything is allowed. This is what Consul's own UI asks (since 1.7): without contract.
        """
        asked = [{"Resource": r.resource, "Access": r.access, "Segment": r.segment} for r in rights]
        path, body = "/v1/internal/acl/authorize", orjson.dumps(asked)
        try:
            answers = await self._http.request(_answers, "POST", path, self._dc, body, self._headers)
        except PermissionDenied as error:
            if error.status == _NO_ACLS:
                return dict.fromkeys(rights, True)
            raise
        except NotFound:
            return None
        except ConsulRefused as error:
            if error.status == 405:
                return None
            raise
        return dict(zip(rights, answers, strict=False)) if len(answers) == len(rights) else None


def _token(response: Response) -> Token:
    answer: Mapping[str, Any] = document(response)
    return Token(
        accessor=answer["AccessorID"],
        description=answer.get("Description") or "",
        policies=tuple(policy["Name"] for policy in answer.get("Policies") or ()),
        roles=tuple(role["Name"] for role in answer.get("Roles") or ()),
        expires=answer.get("ExpirationTime"),
    )


def _answers(response: Response) -> list[bool]:
    return [bool(answer["Allow"]) for answer in document(response)]
