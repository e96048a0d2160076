"""The log as a receiver: what calls for action is an error, the rest a warning or a piece of information."""

from __future__ import annotations

import logging

from citadel_consul.config.receivers import LogReceiver
from citadel_consul.core.notice import Notice, Transition

log = logging.getLogger("citadel_consul.notice")


class LogChannel:
    """Writes notices into the log of this process."""

    def __init__(self, receiver: LogReceiver) -> None:
        self._receiver = receiver

    @property
    def name(self) -> str:
        return self._receiver.name

    @property
    def when(self) -> frozenset[Transition]:
        return self._receiver.when

    async def deliver(self, notice: Notice) -> None:
        words = [notice.title, notice.blast_radius, notice.done, notice.advice]
        log.log(_level(notice), "%s", " | ".join(words))

    async def aclose(self) -> None:
        """There is nothing to let go of."""


def _level(notice: Notice) -> int:
    if notice.calls_for_action:
        return logging.ERROR
    return logging.INFO if notice.transition is Transition.CLOSED else logging.WARNING
