"""The netns runtime where no cluster runs: what is left of one that crashed is found and removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.errors import NotFound
from testbed.runtime import anchors
from testbed.runtime.netns import NetnsRuntime
from tests.unit.agent.specs import cluster

SPEC = cluster()


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))


@pytest.fixture
def crashed() -> NetnsRuntime:
    """The runtime on a machine where an anchor was killed."""
    where = anchors.dirs(SPEC.name)
    where.bootstrap.mkdir(parents=True)
    (where.bootstrap / "spec.json").write_text(json.dumps(SPEC.to_json()))
    where.run.mkdir(parents=True)
    return NetnsRuntime()


def test_a_crashed_cluster_is_found_by_its_directories(crashed: NetnsRuntime) -> None:
    assert SPEC.name in crashed.clusters()
    assert crashed.spec(SPEC.name) == SPEC


def test_a_crashed_cluster_has_no_endpoint(crashed: NetnsRuntime) -> None:
    with pytest.raises(NotFound, match="no cluster tb-d runs on namespaces"):
        crashed.endpoint(SPEC.name)


def test_deleting_a_crashed_cluster_leaves_nothing(crashed: NetnsRuntime, tmp_path: Path) -> None:
    removal = crashed.delete(SPEC.name, lambda _: None)
    assert len(removal.removed) == 2
    assert removal.leftovers == ()
    assert "2 directories are gone" in removal.checked
    assert [path for path in tmp_path.rglob("*") if path.parent != tmp_path] == []
    assert crashed.clusters() == [name for name in crashed.clusters() if name != SPEC.name]


def test_deleting_what_does_not_exist_removes_nothing() -> None:
    assert NetnsRuntime().delete("tb-d-none", lambda _: None).removed == ()
    assert NetnsRuntime().spec("tb-d-none") is None


def test_a_directory_of_another_user_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    assert not str(anchors.run_base()).startswith("/nonexistent")
