from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.cli.main import COMMANDS

ROOT = Path(__file__).parents[3]
NO_ENGINE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


def command(*args: str | Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """The command in a world of its own: no engine, and no cluster of anybody."""
    places = {name: str(directory) for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")}
    env = {**os.environ, **NO_ENGINE, **places, "NO_COLOR": "1", "COLUMNS": "120", "TERM": "dumb"}
    words = [sys.executable, "-m", "testbed.cli", *map(str, args)]
    return subprocess.run(words, capture_output=True, text=True, env=env, timeout=60, check=False)


def test_without_arguments_every_command_is_listed(tmp_path: Path) -> None:
    said = command("--help", directory=tmp_path).stdout
    assert all(f" {command} " in said for command in COMMANDS)


def test_the_version_is_told(tmp_path: Path) -> None:
    assert command("--version", directory=tmp_path).stdout.startswith("testbed 0.")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_explains_its_options(name: str, tmp_path: Path) -> None:
    ran = command(name, "--help", directory=tmp_path)
    assert ran.returncode == 0
    assert "--verbose" in ran.stdout
    assert ran.stdout.count("-v") >= 1


def test_a_bad_file_is_one_sentence_per_mistake_and_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("apiVersion: testbed/v1\nkind: Topology\nmetadata: {name: t}\nspec:\n  nodes: [{nam: a}]\n")
    ran = command("up", file, directory=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [
        f"Error: {file}:5: spec.nodes[0].name: is missing; it has to be given",
        f"{file}:5: spec.nodes[0].nam: is not a key that is known here; did you mean name?",
    ]


def test_what_is_not_available_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    ran = command("up", ROOT / "topologies/two-nodes.yaml", "--set", "network.backend=gre", directory=tmp_path)
    assert ran.returncode == 2
    assert "spec.network.backend: gre is not available yet; use vxlan or host-gw" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_docker_without_an_engine_is_something_the_machine_lacks(tmp_path: Path) -> None:
    ran = command("up", ROOT / "topologies/two-nodes.yaml", "--runtime", "docker", directory=tmp_path)
    assert ran.returncode == 3
    assert "no Docker engine answers (there is no /nowhere/docker.sock)" in ran.stderr


@pytest.mark.parametrize(
    "words",
    [("no-such-command",), ("up",), ("up", "x.yaml", "--set", "nonsense"), ("status", "-o", "xml"), ("schema", "pod")],
)
def test_a_wrong_command_line_is_exit_code_2_without_a_traceback(words: tuple[str, ...], tmp_path: Path) -> None:
    ran = command(*words, directory=tmp_path)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert ran.stderr


@pytest.mark.parametrize("kind", ["topology", "comparison"])
def test_the_schema_is_printed_as_json(kind: str, tmp_path: Path) -> None:
    schema = json.loads(command("schema", kind, directory=tmp_path).stdout)
    assert schema["additionalProperties"] is False


def test_removing_a_cluster_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    ran = command("down", "nobody", directory=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "There is no cluster nobody.\n")


def test_asking_for_a_cluster_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    for name in ("status", "kubeconfig"):
        ran = command(name, "nobody", directory=tmp_path)
        assert ran.returncode == 2
        assert ran.stderr.startswith("Error: there is no cluster nobody")


def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path: Path) -> None:
    heavy = ("pydantic", "httpx", "rich", "docker", "asyncio", "yaml", "cryptography", "numpy", "scipy", "locust")
    look = f"import sys, testbed.cli.clusters, testbed.cli.main; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"
