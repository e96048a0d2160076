"""Who looks for the output of a service that another manager keeps is told where it is."""

from __future__ import annotations

import pytest

from citadel_consul.cli.logs import elsewhere
from citadel_consul.core.model import Backend, CommandBackend, DockerBackend, ProcessBackend, SystemdBackend


@pytest.mark.parametrize(
    ("backend", "remedy"),
    [
        (SystemdBackend("x.service"), "the journal of its node has it: journalctl -u x.service"),
        (SystemdBackend("x.service", bus="user"), "the journal of its node has it: journalctl --user -u x.service"),
        (DockerBackend(container="web"), "Docker on its node has it: docker logs web"),
        (ProcessBackend(("x",)), ""),
        (CommandBackend(("a",), ("b",), ("c",)), ""),
    ],
)
def test_the_output_of_a_service_is_with_who_runs_it(backend: Backend, remedy: str) -> None:
    assert elsewhere(backend) == remedy
