"""`kubectl rollout` against a Deployment: what Kubernetes' own client does with revisions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.clusters import TOPOLOGIES, Cluster, cluster_of
from tests.e2e.command import Ran, cli, run

DONE_S = 60
FIRST, SECOND = "first", "second"


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl_rolls_undoes_pauses_and_restarts_a_deployment(tmp_path: Path) -> None:
    with cluster_of(TOPOLOGIES / "two-nodes.yaml", "netns", tmp_path, manifests=[]) as cluster:
        cluster.up().expect()
        kubectl = Kubectl(cluster, tmp_path)
        kubectl.apply(deployment(FIRST))
        kubectl.apply(deployment(SECOND))
        before = kubectl.replica_sets()
        assert before.keys() == {FIRST, SECOND}

        assert "rolled back" in kubectl.rollout("undo").stdout
        kubectl.rollout("status")
        after = kubectl.replica_sets()
        assert {text: found["metadata"]["name"] for text, found in after.items()} == {
            text: found["metadata"]["name"] for text, found in before.items()
        }, "an undo has made another ReplicaSet of the same template"
        assert {text: found["spec"]["replicas"] for text, found in after.items()} == {FIRST: 2, SECOND: 0}
        assert [line.split()[0] for line in kubectl.rollout("history").stdout.splitlines()[2:] if line] == ["2", "3"]

        kubectl.rollout("pause")
        kubectl.rollout("resume")
        kubectl.rollout("restart")
        assert "successfully rolled out" in kubectl.rollout("status").stdout


class Kubectl:
    """kubectl with the cluster's kubeconfig."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self._cluster = cluster
        self._directory = directory
        config = directory / "kubeconfig"
        cli("kubeconfig", cluster.name, "--file", str(config)).expect()
        self._env = {"KUBECONFIG": str(config), "HOME": str(directory)}

    def apply(self, obj: dict[str, Any]) -> None:
        """Create or change an object by `testbed apply`, and wait until a Deployment has been rolled."""
        file = self._directory / "object.yaml"
        file.write_text(yaml.safe_dump(obj))
        cli("apply", "--cluster", self._cluster.name, str(file)).expect()
        self.rollout("status")

    def rollout(self, what: str) -> Ran:
        """`kubectl rollout WHAT deployment/web`, which succeeds."""
        return run("kubectl", "rollout", what, "deployment/web", env=self._env, timeout_s=DONE_S).expect()

    def replica_sets(self) -> dict[str, Any]:
        """Those of the Deployment, by the note in their template."""
        found = run("kubectl", "get", "replicasets", "-o", "json", env=self._env).expect().json()["items"]
        return {each["spec"]["template"]["metadata"]["annotations"]["note"]: each for each in found}


def deployment(note: str) -> dict[str, Any]:
    """Two pods that do nothing."""
    labels = {"app": "web"}
    container = {"name": "main", "image": "testbed/pause", "args": [], "env": []}
    template = {
        "metadata": {"labels": labels, "annotations": {"note": note}},
        "spec": {"terminationGracePeriodSeconds": 0, "hostNetwork": False, "containers": [container]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
    }
