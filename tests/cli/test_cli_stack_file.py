"""apply, validate, schema, render, config, version."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from command_line import THREE, CommandLine

from citadel_consul import __version__
from citadel_consul.consul.binary import ConsulBinary

pytestmark = pytest.mark.consul


def test_applying_writes_specs_and_edges_and_says_which(cli: CommandLine) -> None:
    result = cli.ok("apply", str(cli.write(THREE)))
    assert "+ service base" in result.out
    assert "+ edge top → middle" in result.out
    assert f"stack {cli.stack}: 5 changes written" in result.out
    names = ("edges/middle/base", "edges/top/middle", "specs/base", "specs/middle", "specs/top")
    assert set(cli.own_kv()) == {f"{cli.prefix}{name}" for name in names}
    assert cli.get("specs/top")["v"] == 1


def test_applying_the_same_file_twice_changes_nothing(cli: CommandLine) -> None:
    path = str(cli.write(THREE))
    cli.ok("apply", path)
    before = cli.own_kv()
    assert "nothing to change" in cli.ok("apply", path).out
    assert cli.own_kv() == before, "not even a ModifyIndex moves"


def test_a_dry_run_shows_the_difference_and_writes_nothing(cli: CommandLine) -> None:
    cli.apply(THREE)
    before = cli.own_kv()
    path = cli.write(THREE.replace("sleep, 1000", "sleep, 2000").replace("depends_on: [base]", "depends_on: []"))
    result = cli.ok("apply", str(path), "--dry-run", "--prune")
    assert "~ service top: backend" in result.out
    assert "- edge middle → base" in result.out
    assert "nothing written (dry run)" in result.out
    assert cli.own_kv() == before


def test_what_the_file_does_not_have_is_kept_unless_pruned(cli: CommandLine) -> None:
    cli.apply(THREE)
    path = str(cli.write(THREE.replace("  top: {depends_on: [middle]}\n", "")))
    kept = cli.ok("apply", path)
    assert "service top: not in the file, kept (--prune removes it)" in kept.out
    assert f"{cli.prefix}specs/top" in cli.own_kv()
    pruned = cli.ok("apply", path, "--prune")
    assert "- service top" in pruned.out
    assert "- edge top → middle" in pruned.out
    assert not {key for key in cli.own_kv() if "top" in key}


def test_a_change_that_lands_between_looking_and_writing_is_refused(cli: CommandLine) -> None:
    """The second writer is as real as the first: it writes the key while `apply` is between its two steps."""
    from citadel_consul.store import applying

    cli.apply(THREE)
    look = applying.read_difference

    async def look_and_be_overtaken(*args: Any, **kwargs: Any) -> applying.Difference:
        difference = await look(*args, **kwargs)
        cli.put("specs/middle", {**cli.get("specs/middle"), "critical": False})
        return difference

    cli.monkeypatch.setattr(applying, "read_difference", look_and_be_overtaken)
    result = cli("apply", str(cli.write(THREE.replace("sleep, 1000", "sleep, 2000"))))
    assert result.status == 4, result
    assert f"{cli.prefix}specs/middle" in result.err
    assert "Somebody else was faster" in result.err
    assert cli.get("specs/middle")["critical"] is False, "what came between is still there"
    assert cli.get("specs/base")["backend"]["command"] == ["sleep", "1000"], "and nothing else was written either"


def test_the_difference_can_be_had_as_json_and_yaml(cli: CommandLine) -> None:
    path = str(cli.write(THREE))
    seen = cli.json("apply", path, "--dry-run")
    assert seen["written"] is False
    assert {"kind": "add", "name": "service base", "detail": ""} in seen["changes"]
    assert yaml.safe_load(cli.ok("apply", path, "--dry-run", "-o", "yaml").out) == seen


def test_a_valid_file_is_said_to_be_valid(cli: CommandLine) -> None:
    path = cli.write(THREE)
    assert cli.ok("validate", str(path)).out == f"{path}: stack {cli.stack}, 3 services, 2 edges: valid\n"
    assert cli.json("validate", str(path)) == {"stack": cli.stack, "services": 3, "edges": 2}
    assert cli.own_kv() == {}


def test_the_schema_is_one_and_takes_the_file(cli: CommandLine) -> None:
    schema = cli.ok("schema").json
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(cli.write(THREE).read_text()), schema)
    assert yaml.safe_load(cli.ok("schema", "-o", "yaml").out) == schema


def test_what_is_rendered_is_what_consul_accepts(cli: CommandLine, consul_binary: ConsulBinary) -> None:
    base = "  base: {endpoint: 'tcp://127.0.0.1:4242', checks: [{tcp: '127.0.0.1:4242'}]}"
    cli.apply(THREE.replace("  base: {}", base))
    definition = cli.ok("render", "base").json
    assert definition["service"]["id"] == f"{cli.stack}.base.n1"
    assert definition["service"]["port"] == 4242
    out = cli.folder / "rendered"
    written = cli.ok("render", "--out", str(out)).out.split()
    assert len(written) == 3
    site = {"bind_addr": "127.0.0.1", "data_dir": str(cli.folder)}  # what a site adds to them
    (out / "site.json").write_text(json.dumps(site))
    done = subprocess.run([consul_binary.path, "validate", out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_is_rendered_without_any_consul(cli: CommandLine) -> None:
    cli.monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    assert len(cli.ok("render", "--file", str(cli.write(THREE))).json) == 3


def test_policies_are_rendered_for_the_stack(cli: CommandLine) -> None:
    text = cli.ok("render", "--acl", "--file", str(cli.write(THREE))).out
    assert f'key_prefix "citadel/{cli.stack}/"' in text


def test_each_setting_is_shown_with_its_origin_and_secrets_are_not(cli: CommandLine) -> None:
    cli.monkeypatch.setenv("CONSUL_HTTP_TOKEN", "a-very-secret-token")
    cli.monkeypatch.setenv("ORCHESTRATOR_RECOVERY_ATTEMPTS", "5")
    result = cli.ok("config")
    assert "a-very-secret-token" not in result.out + result.err
    seen = cli.json("config")
    assert seen["recovery.attempts"] == {"value": "5", "origin": "environment ORCHESTRATOR_RECOVERY_ATTEMPTS"}
    assert seen["recovery.delay"]["origin"] == "default"
    assert "secret" not in json.dumps(seen)


def test_the_versions_of_everything_are_shown(cli: CommandLine, consul_binary: ConsulBinary) -> None:
    seen = cli.json("version")
    assert seen["citadel"] == __version__
    assert seen["consul_agent"] == consul_binary.version
    text = cli.ok("version").out
    assert f"citadel {__version__}" in text
    assert f"consul agent: {consul_binary.version}" in text


def test_the_version_is_shown_without_any_consul(cli: CommandLine) -> None:
    cli.monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    assert "consul agent: none reached" in cli.ok("version").out


def test_the_example_stack_is_valid(cli: CommandLine) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "ai-platform" / "stack.yaml"
    assert "12 services" in cli.ok("validate", str(example)).out
