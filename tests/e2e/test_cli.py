"""The command line as a user and a script meet it: exit codes, output, one-sentence errors."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.clusters import ROOT, TOPOLOGIES, UP_S, Cluster, cluster_of, unique
from tests.e2e.command import Ran, cli, run, start_cli
from tests.e2e.parts import first_parts

DONE, BAD_INPUT, FAILED, INTERRUPTED = 0, 2, 4, 130
STOCK_LOCUSTFILE = ROOT / "loadtests/stock_http.py"


@pytest.fixture(scope="module", params=["netns", "docker"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, up for the whole module."""
    with cluster_of(TOPOLOGIES / "two-nodes.yaml", request.param, tmp_path_factory.mktemp("cli")) as cluster:
        cluster.up().expect()
        yield cluster


def another(cluster: Cluster, directory: Path, **settings: Any) -> AbstractContextManager[Cluster]:
    """A second cluster beside the module's, not yet up."""
    name = unique(f"e-other-{cluster.runtime}")
    return cluster_of(TOPOLOGIES / "two-nodes.yaml", cluster.runtime, directory, name=name, **settings)


def on(cluster: Cluster, command: str, *args: str | Path, stdin: str | None = None) -> Ran:
    """`testbed COMMAND --cluster NAME ARGS`."""
    return cli(command, "--cluster", cluster.name, *args, stdin=stdin)


def test_exec_passes_exit_code_input_and_both_outputs(cluster: Cluster) -> None:
    program = "import sys; print(sys.stdin.read().upper()); print('complaint', file=sys.stderr); sys.exit(7)"
    ran = on(cluster, "exec", "deployment/netexec", "--", "python3", "-c", program, stdin="words")
    ran.expect(7)
    assert ran.stdout == "WORDS\n"
    assert ran.stderr == "complaint\n"


def test_exec_of_a_program_that_is_not_there_says_so(cluster: Cluster) -> None:
    ran = on(cluster, "exec", "deployment/netexec", "--", "no-such-program")
    assert ran.code != DONE
    assert "no-such-program" in ran.stderr + ran.stdout
    assert "Traceback" not in ran.stderr


def test_logs_show_what_a_program_printed(cluster: Cluster) -> None:
    ran = on(cluster, "logs", "deployment/netexec").expect()
    assert "netexec serves HTTP on port 8080" in ran.stdout
    assert on(cluster, "logs", "--tail", "0", "deployment/netexec").expect().stdout == ""


def test_status_tells_nodes_pods_and_services(cluster: Cluster) -> None:
    status = cli("status", cluster.name, "-o", "json").expect().json()
    assert (status["cluster"], status["runtime"]) == (cluster.name, cluster.runtime)
    assert len(status["nodes"]) == 2
    assert len(status["pods"]) >= 6
    text = cli("status", cluster.name).expect().stdout
    assert all(word in text for word in ("web", "netexec", "10.96."))


def test_apply_creates_then_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"key": "value"}}
    file = tmp_path / "applied.yaml"
    file.write_text(yaml.safe_dump(manifest))
    actions = [on(cluster, "apply", "-o", "json", str(file)).expect().json()[0]["action"] for _ in range(2)]
    assert actions == ["created", "unchanged"]


def test_what_the_api_server_refuses_is_told_with_file_and_line(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("apiVersion: v1\nkind: Service\nmetadata:\n  name: wrong\nspec:\n  ports:\n    - port: 99999\n")
    ran = on(cluster, "apply", str(file)).expect(BAD_INPUT)
    assert f"{file}:7" in ran.stderr


def test_a_plain_http_client_lists_pods_with_the_kubeconfig(cluster: Cluster) -> None:
    config = yaml.safe_load(cluster.kubeconfig())
    server = config["clusters"][0]["cluster"]
    tls = ssl.create_default_context(cadata=base64.b64decode(server["certificate-authority-data"]).decode())
    url = f"{server['server']}/api/v1/namespaces/default/pods"
    token = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
    with httpx.Client(verify=tls, trust_env=False) as client:
        assert len(client.get(url, headers=token).json()["items"]) >= 6
        assert client.get(url).status_code == 401


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl_reads_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    config = tmp_path / "kubeconfig"
    cli("kubeconfig", cluster.name, "--file", str(config)).expect()
    assert config.stat().st_mode & 0o077 == 0, "a kubeconfig is a secret"
    env = {"KUBECONFIG": str(config), "HOME": str(tmp_path)}
    pods = run("kubectl", "get", "pods", "-o", "json", env=env).expect().json()["items"]
    assert len([pod for pod in pods if pod["status"]["phase"] == "Running"]) >= 6
    assert len(run("kubectl", "get", "nodes", "-o", "name", env=env).expect().stdout.split()) == 2


def test_a_stock_locustfile_loads_a_service(cluster: Cluster) -> None:
    args = ["--target", "service/web", "--locustfile", str(STOCK_LOCUSTFILE), "--users", "4", "--seconds", "3"]
    record = on(cluster, "load", *args, "-o", "json").expect().json()
    assert record["requests"] > 100
    assert record["errors"] == 0


def test_a_load_that_fails_is_a_failed_check(cluster: Cluster) -> None:
    ran = on(cluster, "load", "--target", "http://10.96.255.254:81", "--users", "1", "--seconds", "1")
    assert ran.code != DONE
    assert "Traceback" not in ran.stderr


def test_an_image_that_nobody_has_is_named_by_up(cluster: Cluster, tmp_path: Path) -> None:
    pod = {"containers": [{"name": "main", "image": "example/no-such-image"}]}
    manifest = tmp_path / "unknown.yaml"
    manifest.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lost"}, "spec": pod}))
    with another(cluster, tmp_path, manifests=[str(manifest)]) as other:
        ran = cli("up", other.file, "--timeout", "8").expect(FAILED)
        assert all(word in ran.stderr for word in ("default/lost", "ErrImagePull", "example/no-such-image"))
        assert "Traceback" not in ran.stderr


def test_two_clusters_stand_side_by_side_with_the_same_addresses(cluster: Cluster, tmp_path: Path) -> None:
    with another(cluster, tmp_path) as other:
        other.up().expect()
        assert "several clusters" in cli("exec", "deployment/web", "--", "true").expect(BAD_INPUT).stderr
        for each in (cluster, other):
            reach_web(each)
    reach_web(cluster)


def reach_web(cluster: Cluster) -> None:
    """From one pod to the address of another, of the same cluster; which address that is, is the scheduler's affair."""
    address = on(cluster, "exec", "deployment/web", "--", "hostname", "-i").expect().stdout.split()[0]
    on(cluster, "exec", "deployment/netexec", "--", "netexec", "connect", f"{address}:80").expect()


def test_an_interrupted_up_says_how_to_go_on(cluster: Cluster, tmp_path: Path) -> None:
    with another(cluster, tmp_path) as other:
        up = start_cli("up", other.file)
        first_parts(other.name, other.runtime, "control-plane", timeout_s=UP_S)
        up.signal(signal.SIGINT)
        ran = up.wait(UP_S).expect(INTERRUPTED)
        assert f"testbed down {other.name}" in ran.stderr
        assert "Traceback" not in ran.stderr


def test_the_name_of_no_cluster_is_bad_input() -> None:
    for command in ("status", "kubeconfig"):
        ran = cli(command, "no-such-cluster").expect(BAD_INPUT)
        assert "no-such-cluster" in ran.stderr


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "apiVersion: testbed/v1\nkind: Topology\nmetadata: {name: Wrong}\nspec:\n  nodes:\n    - {nome: a}\n"
        "  network: {backend: pigeons}\n"
    )
    ran = cli("up", file).expect(BAD_INPUT)
    for mistake in (f"{file}:3", "Wrong", f"{file}:6", "nome", f"{file}:7", "pigeons"):
        assert mistake in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    assert str(tmp_path / "absent.yaml") in cli("up", tmp_path / "absent.yaml").expect(BAD_INPUT).stderr


def test_schemas_are_json() -> None:
    for kind in ("topology", "comparison"):
        assert json.loads(cli("schema", kind).expect().stdout)["type"] == "object"


def test_the_doctor_knows_the_runtimes() -> None:
    diagnosis = cli("doctor", "-o", "json")
    assert diagnosis.code in (0, 3)
    assert set(diagnosis.json()["runtimes"]) == {"docker", "netns"}
