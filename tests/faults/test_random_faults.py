"""Two hundred rounds of random faults during operations: no invariant is broken, whatever dies, hangs or is cut off.

And the proof that the test would tell: with the leader's fence taken out of the program, and with the node agent's look
at the epoch, the same campaign finds the violation.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from campaign import Lane, draw
from cluster import NODES, Cluster
from directed import late_write, old_order
from planted_bug import planted
from roles import NewCrew
from verdict import Verdict

from citadel_consul.consul.binary import ConsulBinary

pytestmark = [pytest.mark.consul, pytest.mark.slow]


DIRECTED = {"a late write of a deposed leader": late_write, "an order of a deposed leader": old_order}


class Campaign:
    """The directed schedules, then rounds that are spread over lanes until one has broken something."""

    def __init__(self, seed: str, rounds: int, lanes: list[Lane]) -> None:
        self.seed = seed
        self.lanes = lanes
        self.broken: list[str] = []
        self._numbers: Iterator[int] = iter(range(rounds))
        self._next = threading.Lock()
        self._over = False

    def run(self) -> list[str]:
        """Play everything; returns what was broken, with all that is needed to see how."""
        with ThreadPoolExecutor(len(self.lanes)) as pool:
            played = [pool.submit(self._play, lane) for lane in self.lanes]
            try:
                wait(played, return_when=FIRST_EXCEPTION)
            finally:  # also when a lane failed or the run was interrupted: the others end with their round
                self._over = True
        for lane in played:
            lane.result()
        return self.broken

    def _play(self, lane: Lane) -> None:
        lane.prepare()
        if lane is self.lanes[0]:
            for what, schedule in DIRECTED.items():
                if not self.broken:
                    with lane.cluster_lock:  # what is held on its way to Consul must not be lost to its failure
                        self._take(lane, what, schedule(lane))
        while not self.broken and not self._over:
            with self._next:
                number = next(self._numbers, None)
            if number is None:
                return
            round_ = draw(self.seed, number)
            self._take(lane, f"seed {self.seed}, {round_}", lane.play(round_))
            print(lane.log[-1], flush=True)

    def _take(self, lane: Lane, what: str, verdict: Verdict) -> None:
        if verdict.broken:
            self.broken.append("\n".join([f"{what}:", *verdict.broken, lane.crew.world.logs()]))


def _lanes(cluster: Cluster, new_crew: NewCrew, count: int, **environ: str) -> list[Lane]:
    consuls = [member.address for member in (*cluster.servers, *cluster.clients.values())]
    lock = threading.RLock()
    return [Lane(cluster, new_crew(*consuls, **environ), lock) for _ in range(count)]


@pytest.fixture
def second_cluster(consul_binary: ConsulBinary, tmp_path: Path) -> Iterator[Cluster]:
    """Rounds in which Consul itself fails exclude one another on one cluster, so there are two."""
    with Cluster(consul_binary, tmp_path, NODES) as made:
        yield made


def test_no_invariant_is_broken_by_random_faults(
    cluster: Cluster, second_cluster: Cluster, new_crew: NewCrew, pytestconfig: pytest.Config
) -> None:
    seed, rounds, count = (pytestconfig.getoption(name) for name in ("--seed", "--rounds", "--lanes"))
    lanes = [lane for each in (cluster, second_cluster) for lane in _lanes(each, new_crew, count)]
    campaign = Campaign(seed, rounds, lanes)
    assert not campaign.run(), "\n".join(campaign.broken)
    assert sum(len(lane.log) for lane in lanes) == rounds


FENCE = ("orchestrator/fence.py", "[check_session(self.leader_key, self.session), *operations]", "list(operations)")
EPOCH = ("agent/orders.py", "if wanted.epoch < self._reporter.document.epoch:", "if False:")


@pytest.mark.parametrize("plant", [FENCE, EPOCH], ids=["without-the-fence", "without-the-look-at-the-epoch"])
def test_the_same_campaign_finds_a_planted_bug(
    cluster: Cluster, new_crew: NewCrew, tmp_path: Path, plant: tuple[str, str, str]
) -> None:
    lanes = _lanes(cluster, new_crew, 1, **planted(tmp_path / "planted", *plant))
    broken = Campaign("planted", 0, lanes).run()
    assert any(line.startswith("I3:") for text in broken for line in text.splitlines()), broken
