"""What a process knows of one service, shared by the watch that learns it and the requests that use it.

The watch lives in an event loop; requests may come from any thread. Whoever waits for news leaves a callback, which is
called in the thread of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import monotonic

from citadel_consul.consul.instances import Instance
from citadel_consul.discovery.balancer import Balancer
from citadel_consul.discovery.choice import Instances
from citadel_consul.discovery.failures import NoInstance
from citadel_consul.discovery.naming import ServiceName
from citadel_consul.discovery.pace import Pace
from citadel_consul.errors import CitadelError

FRESH_SECONDS = 1.0
"""How old an answer may be, without a blocking query, before a use of the service has Consul asked again."""


class View:
    """One service as it is known. ``balancer`` chooses, ``pace`` says how soon it usually answers.

    ``trouble`` is why Consul cannot be seen, if it cannot. ``live`` says that a blocking query waits for its changes,
    ``retired`` that it is not followed any more.
    ``reconnects`` counts the outages of Consul that are over.
    """

    def __init__(self, name: ServiceName, balancer: Balancer, clock: Callable[[], float] = monotonic) -> None:
        self.name = name
        self.balancer = balancer
        self.pace = Pace()
        self.trouble: CitadelError | None = None
        self.live = False
        self.retired = False
        self.reconnects = 0
        self._clock = clock
        self._asked_at = float("-inf")
        self._used_at = clock()
        self._ask: Callable[[], None] = lambda: None
        self._listeners: dict[object, Callable[[], None]] = {}

    @property
    def known(self) -> bool:
        """Whether Consul has answered about this service at all."""
        return self.balancer.roster.known

    @property
    def instances(self) -> Instances:
        """Who serves now."""
        return self.balancer.roster.instances

    @property
    def idle_seconds(self) -> float:
        """How long nobody has used it; 0 while somebody listens to it."""
        return 0.0 if self._listeners else self._clock() - self._used_at

    def use(self) -> None:
        """Note a use, and have Consul asked again if what is known is not watched and has grown old."""
        now = self._used_at = self._clock()
        if not self.live and now - self._asked_at >= FRESH_SECONDS:
            self._asked_at = now  # one question for all that come now
            self._ask()

    def asked(self) -> None:
        """Note that Consul is being asked."""
        self._asked_at = self._clock()

    def on_ask(self, ask: Callable[[], None]) -> None:
        """Have ``ask`` called, from any thread, when Consul should be asked again."""
        self._ask = ask

    def acquire(self, tried: Collection[str] = ()) -> Instance | None:
        """As :meth:`Balancer.acquire`, counted as a use."""
        self.use()
        return self.balancer.acquire(tried)

    def nobody(self) -> NoInstance:
        """The error that says why nobody serves it."""
        if self.trouble is not None:
            return NoInstance(f"no instance of {self.name} is known: {self.trouble}")
        if not self.known:
            return NoInstance(f"no instance of {self.name} is known: Consul has not answered yet")
        return NoInstance(f"Consul knows no instance of {self.name} that serves")

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` at each change of who serves, and of Consul's presence. Returns how to end that."""
        key = object()
        # Replaced, not changed: the loop's thread may be walking through it.
        self._listeners = {**self._listeners, key: listener}

        def unsubscribe() -> None:
            self._listeners = {k: known for k, known in self._listeners.items() if k is not key}

        return unsubscribe

    def announce(self) -> None:
        """Tell the listeners."""
        for listener in self._listeners.values():
            listener()
