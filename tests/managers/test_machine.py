"""The machines that the other tests of this folder rest on."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable

from managed_machine import CITADEL, PYTHON, Machine


def test_a_machine_runs_systemd_and_the_code_of_the_checkout(machine: Machine) -> None:
    assert machine.output("cat", "/proc/1/comm") == "systemd"
    assert "citadel" in machine.output(CITADEL, "version")
    assert machine.output(PYTHON, "-c", "import citadel_consul; print(citadel_consul.__file__)").startswith("/opt/")
    assert machine.run(["touch", "/opt/checkout/x"], check=False).returncode != 0


def test_a_reboot_keeps_what_is_on_disk_and_brings_consul_back(new_machine: Callable[[], Machine]) -> None:
    machine = new_machine()
    address = machine.start_consul()
    machine.run(["consul", "kv", "put", "kept", "yes"])
    machine.write("/run/passing", "away")
    machine.reboot()
    ready = ["consul", "kv", "get", "kept"]
    machine.until(lambda: machine.run(ready, check=False).stdout == "yes\n", "Consul is back with its data")
    assert machine.run(["test", "-e", "/run/passing"], check=False).returncode == 1
    with urllib.request.urlopen(f"{address}/v1/catalog/nodes", timeout=10) as answer:
        assert [node["Node"] for node in json.load(answer)] == [machine.name]
