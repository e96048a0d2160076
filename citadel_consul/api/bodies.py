"""The bodies of requests: what may be in them, and nothing else."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator

from citadel_consul.core.model import OnFailure
from citadel_consul.core.names import RULE, is_label
from citadel_consul.core.operation import ALL

LONGEST_SECONDS = 86_400.0


def _target(text: str) -> str:
    service, at, node = text.partition("@")
    if not is_label(service):
        raise ValueError(f"{service[:80]!r} is not a name: {RULE}")
    if at and not is_label(node):
        raise ValueError(f"{node[:80]!r} is not a name of a node: {RULE}")
    return text


def _one_service(text: str) -> str:
    if text == ALL:
        raise ValueError("one service at a time is recovered; 'all' is none")
    return _target(text)


Target = Annotated[StrictStr, AfterValidator(_target)]
"""A service, an instance (``service@node``), or ``all``."""

Service = Annotated[StrictStr, AfterValidator(_one_service)]
"""A service, or an instance of it (``service@node``)."""

DrainSeconds = Annotated[float, Field(strict=True, ge=0, le=LONGEST_SECONDS, allow_inf_nan=False)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]


class RequestBody(BaseModel):
    """What every request can say: how long it may take, and why it is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout_seconds: Seconds | None = Field(
        None, description="How long the operation may take. Default: the setting for its kind."
    )
    reason: StrictStr = Field("", max_length=500, description="Why, for the record.")


class _Services(RequestBody):
    services: list[Target] = Field(
        min_length=1,
        max_length=10_000,
        description="Services, instances (service@node), or all.",
        examples=[["all"], ["api-gateway"]],
    )


class StartupBody(_Services):
    """Start services, and everything that they need."""

    on_failure: OnFailure | None = Field(
        None, description="What to do when a service does not start, instead of what each service's spec says."
    )


class ShutdownBody(_Services):
    """Stop services, each after everything that needs it."""

    graceful: StrictBool = Field(True, description="Stop by signal and wait; otherwise kill at once.")
    cascade: StrictBool = Field(False, description="Take running dependents down too; otherwise it is refused.")


class RestartBody(RequestBody):
    """Restart a service in place; its dependents do what their edges say."""

    service: Target = Field(description="The service, an instance (service@node), or all.")
    graceful: StrictBool = Field(True, description="Stop by signal and wait; otherwise kill at once.")
    cascade: StrictBool = Field(False, description="Stop the running dependents before, and start them after it.")
    rolling: StrictBool = Field(False, description="One instance after the other, each drained before it is stopped.")
    subtree: StrictBool = Field(False, description="With `rolling`: all that needs it as well, after it.")
    force: StrictBool = Field(False, description="With `rolling`: also if running dependents can spare no instance.")
    drain_seconds: DrainSeconds | None = Field(
        None, description="With `rolling`: longest drain of an instance. Default: what its spec says, or the setting."
    )

    @model_validator(mode="after")
    def _what_belongs_to_rolling(self) -> Self:
        if self.rolling and self.cascade:
            raise ValueError("cascade stops the dependents, and rolling keeps them up")
        if not self.rolling and (self.subtree or self.force or self.drain_seconds is not None):
            raise ValueError("subtree, force and drain_seconds need rolling")
        return self


class DrainBody(_Services):
    """Take instances out of DNS, let them finish what they have in hand, and stop them."""

    force: StrictBool = Field(False, description="Also if running dependents need it; they stay up.")
    drain_seconds: DrainSeconds | None = Field(
        None, description="Longest drain before the stop. Default: what the spec says, or the setting."
    )


class RecoverBody(RequestBody):
    """Restart what is broken of a service (all of it if nothing is), verify it, and tell its dependents."""

    service: Service = Field(description="The service, or an instance of it (service@node).")


class RecoveryTestBody(RequestBody):
    """Say what a recovery would do; with ``execute``, do it."""

    service: Service | None = Field(None, description="The service. Default: every service, each by itself.")
    execute: StrictBool = Field(False, description="Recover it, as POST recover does. Needs a service.")

    @model_validator(mode="after")
    def _what_to_execute(self) -> Self:
        if self.execute and self.service is None:
            raise ValueError("execute needs a service")
        return self
