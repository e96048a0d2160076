"""Channels: the ways in which a receiver is reached, all alike to whoever has something to tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from citadel_consul.config.receivers import CommandReceiver, Receiver, Receivers, WebhookReceiver
from citadel_consul.core.notice import Notice, Transition


class Channel(Protocol):
    """Delivers notices to one receiver."""

    @property
    def name(self) -> str:
        """The receiver's name."""
        ...

    @property
    def when(self) -> frozenset[Transition]:
        """What the receiver wants to hear of."""
        ...

    async def deliver(self, notice: Notice) -> None:
        """Deliver ``notice``, or raise within the receiver's time-out.

        Raises:
            ReceiverUnavailable: it can succeed later.
            ReceiverRefused, InvalidInput: it will not.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what deliveries kept open."""
        ...


def open_channels(receivers: Receivers, directories: Sequence[Path] = ()) -> tuple[Channel, ...]:
    """A channel for each receiver. Raises InvalidInput for what could not work: a template that is missing or broken.

    ``directories`` hold templates that are preferred to the shipped ones.
    """
    return tuple(_open(receiver, directories) for receiver in receivers.items)


def _open(receiver: Receiver, directories: Sequence[Path]) -> Channel:
    if isinstance(receiver, WebhookReceiver):
        from citadel_consul.notification.webhook import WebhookChannel  # httpx and Jinja, only where they are used

        return WebhookChannel(receiver, directories)
    if isinstance(receiver, CommandReceiver):
        from citadel_consul.notification.command import CommandChannel

        return CommandChannel(receiver)
    from citadel_consul.notification.journal import LogChannel

    return LogChannel(receiver)
