"""SIGTERM, with something to do before it takes effect.

A server that is told to stop closes its socket at once, while clients still have its address. So the signal is kept
back until they have been told, and then given to whoever had it before. A second signal is not kept back: whoever sends
it does not want to wait.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Termination:
    """Keeps SIGTERM back. ``begin`` is called in the main thread, in a signal handler, and must not wait."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin
        self._before: Any = None
        self._begun = False
        self._passed = False
        self.installed = False

    def install(self) -> bool:
        """Take the signal; False if this is not the main thread, the only one that Python lets take signals."""
        if threading.current_thread() is not threading.main_thread():
            return False
        self._before = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, self._receive)
        self.installed = True
        return True

    def remove(self) -> None:
        """Give the signal back, unless somebody else has taken it since."""
        if self.installed and threading.current_thread() is threading.main_thread():
            self.installed = False
            if signal.getsignal(signal.SIGTERM) == self._receive:
                signal.signal(signal.SIGTERM, self._before if self._before is not None else signal.SIG_DFL)
            if self._begun and not self._passed:
                self.let_through()  # kept back, and nobody is left to let it through later

    @property
    def ends_the_process(self) -> bool:
        """Whether the signal, once let through, ends the process without any cleaning up."""
        return self._before is None or self._before == signal.SIG_DFL

    @staticmethod
    def let_through() -> None:
        """What was to be done first is done. Sends the signal again, from any thread, to the main thread."""
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, signal.SIGTERM)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._begun:
            self._begun = True
            self._begin()
            return
        self._passed = True
        if callable(self._before):
            self._before(number, frame)
        elif self._before != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
