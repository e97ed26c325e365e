"""Pods on a real engine: the contract of all container runtimes, and what only an engine does."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import RawIOBase
from pathlib import Path
from typing import Any

import docker
import pytest

from testbed.agent.docker_engine import connect
from testbed.agent.docker_names import CLUSTER_LABEL, IMAGES_VARIABLE, Names
from testbed.agent.docker_sandbox import DockerSandboxes
from testbed.agent.sandbox import ContainerSpec, ContainerState, ExecSession, Mount, PodSandbox, Sandboxes
from testbed.errors import MachineLacks, NotFound
from testbed.runtime.docker import DockerRuntime
from testbed.runtime.images import build
from testbed.waiting import wait_until
from tests.kernel.test_sandboxes import (  # noqa: F401 - the contract, over the fixture `fresh` of this module
    test_a_change_wakes_who_waits_for_it,
    test_a_deleted_pod_takes_its_containers_along,
    test_a_pod_is_found_again_and_is_made_once,
    test_a_started_container_runs_and_is_found_again,
    test_a_stopped_container_is_remembered_until_it_is_deleted,
    test_an_image_that_cannot_be_had_is_not_found,
    test_starting_the_same_attempt_twice_starts_one_container,
    test_two_attempts_are_told_apart,
    test_what_does_not_exist_is_not_found,
)

STATE = Path("/var/lib/testbed-e2e")
"""Where an agent would have the volume of pods' files; only its path is used."""
SOON_S = 10.0
HOSTS = "127.0.0.1\tlocalhost\n192.0.2.9\tsomebody\n"
SIZES = (0, 1, 9, 10, 1000, 65536, 1_000_000, 10_485_760)


@pytest.fixture(scope="module", params=["docker"])
def cluster() -> Iterator[str]:
    """The name of a cluster that has a volume for pods' files, and nothing else."""
    if os.geteuid() != 0:
        pytest.skip("only root sees the namespaces of containers in /proc; an agent is root in its own")
    try:
        engine = connect()
    except MachineLacks as error:
        pytest.skip(str(error))
    name = f"e-sandbox-{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(IMAGES_VARIABLE, json.dumps(build(lambda _: None, engine)))
        engine.api.create_volume(Names(name).pods, labels={CLUSTER_LABEL: name})
        try:
            yield name
        finally:
            assert DockerRuntime().delete(name, lambda _: None).leftovers == ()
            engine.close()


@pytest.fixture(scope="module")
def fresh(cluster: str) -> Callable[[], Sandboxes]:
    return lambda: DockerSandboxes(cluster, STATE)


@dataclass(frozen=True)
class Pod:
    """A pod of one test."""

    sandboxes: DockerSandboxes
    sandbox: PodSandbox

    def start(self, name: str, image: str, **fields: Any) -> ContainerState:
        """A container of it."""
        spec = ContainerSpec(
            self.sandbox.pod_uid, name, image, self.sandbox.netns, self.sandbox.handle, "", self.sandbox.name, 0
        )
        return self.sandboxes.start(replace(spec, **fields))


@pytest.fixture
def pod(cluster: str, request: pytest.FixtureRequest) -> Pod:
    sandboxes = DockerSandboxes(cluster, STATE)
    uid = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    return Pod(sandboxes, sandboxes.ensure_pod(uid, "default", uid, "web-0", STATE))


def outcome(program: ExecSession, stdin: bytes | None = None) -> tuple[bytes, bytes, int]:
    """Everything that the program writes on stdout and stderr, and its exit code."""
    found: dict[int, bytes] = {1: b"", 2: b""}

    def read(number: int, stream: RawIOBase) -> None:
        with stream:
            found[number] = stream.readall() or b""

    streams = {1: program.stdout, 2: program.stderr}
    readers = [threading.Thread(target=read, args=(number, stream)) for number, stream in streams.items() if stream]
    for reader in readers:
        reader.start()
    if stdin is not None and program.stdin:
        rest = memoryview(stdin)
        while rest:
            rest = rest[program.stdin.write(rest) or 0 :]
        program.stdin.close()
    for reader in readers:
        reader.join()
    return found[1], found[2], program.wait()


def run(pod: Pod, container: ContainerState, *argv: str) -> str:
    out, err, code = outcome(pod.sandboxes.exec(container.id, argv, stdin=False, tty=False))
    assert code == 0, err
    return out.decode()


def test_containers_of_a_pod_share_its_network_and_name(pod: Pod) -> None:
    pod.start("web", "testbed/web")
    netexec = pod.start("netexec", "testbed/netexec")
    assert run(pod, netexec, "hostname") == "web-0\n"
    assert run(pod, netexec, "curl", "-s", "http://127.0.0.1/hostname") == "web-0"


@pytest.mark.parametrize("size", SIZES)
def test_the_web_server_sends_exactly_as_many_bytes_as_it_is_asked_for(pod: Pod, size: int) -> None:
    web = pod.start("web", "testbed/web", env={"PORT": "8081", "CPUS": "0"})
    told = "%{http_code} %{size_download} %header{content-length}"
    url = f"http://127.0.0.1:8081/bytes/{size}"
    assert (
        run(pod, web, "curl", "-s", "--retry", "5", "--retry-connrefused", "-o", "/dev/null", "-w", told, url)
        == f"200 {size} {size}"
    )


@pytest.mark.parametrize(("path", "answer"), [("/healthz", "ok"), ("/clientip", "127.0.0.1:"), ("/", "web-0")])
def test_the_web_server_answers(pod: Pod, path: str, answer: str) -> None:
    web = pod.start("web", "testbed/web")
    assert answer in run(pod, web, "curl", "-sf", f"http://127.0.0.1{path}")


@pytest.mark.parametrize(("image", "port"), [("testbed/web", 80), ("testbed/netexec", 8080)])
def test_a_server_ends_at_once_when_it_is_asked_to(pod: Pod, image: str, port: int) -> None:
    server = pod.start("server", image)
    run(pod, server, "curl", "-s", "--retry", "5", "--retry-connrefused", f"http://127.0.0.1:{port}/healthz")
    pod.sandboxes.stop(server.id, 30)
    ended = next(state for state in pod.sandboxes.containers() if state.id == server.id)
    assert ended.exit_code == 0


def test_files_of_the_agents_volume_are_mounted(pod: Pod, cluster: str) -> None:
    _write(connect(), cluster, pod.sandbox.handle, "hosts", HOSTS)
    container = pod.start("main", "testbed/netexec", mounts=[Mount(STATE / "hosts", "/etc/hosts")])
    assert run(pod, container, "cat", "/etc/hosts") == HOSTS
    _, err, code = outcome(pod.sandboxes.exec(container.id, ["touch", "/etc/hosts"], stdin=False, tty=False))
    assert code != 0
    assert b"Read-only" in err


def test_a_program_gets_its_input_and_gives_its_output_whole(pod: Pod) -> None:
    container = pod.start("main", "testbed/netexec")
    data = os.urandom(3_000_000)
    program = pod.sandboxes.exec(container.id, ["cat"], stdin=True, tty=False)
    assert outcome(program, data) == (data, b"", 0)


def test_a_program_has_two_streams_and_an_exit_code(pod: Pod) -> None:
    container = pod.start("main", "testbed/netexec")
    program = pod.sandboxes.exec(container.id, ["sh", "-c", "echo out; echo err >&2; exit 3"], stdin=False, tty=False)
    assert outcome(program) == (b"out\n", b"err\n", 3)


def test_a_terminal_has_the_size_it_is_given(pod: Pod) -> None:
    container = pod.start("main", "testbed/netexec")
    program = pod.sandboxes.exec(container.id, ["sh", "-c", "read _; stty size"], stdin=True, tty=True)
    program.resize(120, 40)
    out, _, code = outcome(program, b"\n")
    assert (out.splitlines()[-1], code) == (b"40 120", 0)


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_a_program_whose_client_has_gone_is_ended(pod: Pod, tty: bool) -> None:
    container = pod.start("main", "testbed/netexec")
    program = pod.sandboxes.exec(container.id, ["sleep", "600"], stdin=False, tty=tty)
    program.kill()
    assert outcome(program)[2] == 128 + 9
    assert "sleep" not in run(pod, container, "ps", "-eo", "args")


def test_a_followed_log_ends_with_its_container_or_its_reader(pod: Pod) -> None:
    talks = pod.start("talks", "testbed/netexec", command=["sh", "-c", "echo one; echo two >&2; read _; sleep 600"])
    wait_until(lambda: _text(pod, talks, follow=False).count("\n") == 2, SOON_S, "two lines")
    assert sorted(_text(pod, talks, follow=False).split()) == ["one", "two"]
    followed = pod.sandboxes.read_log(talks.id, tail=0, follow=True)
    reader = threading.Thread(target=followed.read, args=(100,))
    reader.start()
    followed.close()
    reader.join(SOON_S)
    assert not reader.is_alive()
    following = pod.sandboxes.read_log(talks.id, follow=True)
    pod.sandboxes.stop(talks.id, 0)
    assert sorted((following.readall() or b"").split()) == [b"one", b"two"]


def test_a_command_that_is_not_there_ends_with_its_reason(pod: Pod) -> None:
    state = pod.start("main", "testbed/web", command=["/no/such/program"])
    assert (state.is_running, state.exit_code, state.reason) == (False, 127, "ContainerCannotRun")
    assert state in pod.sandboxes.containers()


def test_a_program_in_a_container_that_has_ended_is_not_found(pod: Pod) -> None:
    container = pod.start("main", "testbed/netexec")
    pod.sandboxes.stop(container.id, 0)
    with pytest.raises(NotFound, match="does not run"):
        pod.sandboxes.exec(container.id, ["true"], stdin=False, tty=False)


@pytest.mark.parametrize(
    ("command", "args", "seen"),
    [((), ("connect", "127.0.0.1:1"), "REFUSED"), (("echo", "a"), ("b",), "a b"), (("echo", "alone"), (), "alone")],
    ids=["args for the image's program", "both", "a command drops the image's arguments"],
)
def test_command_and_args_mean_what_they_mean_in_a_pod(
    pod: Pod, command: Sequence[str], args: Sequence[str], seen: str
) -> None:
    container = pod.start("main", "testbed/netexec", command=command, args=args)
    assert _text(pod, container, follow=True).strip() == seen


def _text(pod: Pod, container: ContainerState, *, follow: bool) -> str:
    with pod.sandboxes.read_log(container.id, follow=follow) as log:
        return (log.readall() or b"").decode()


def _write(engine: docker.DockerClient, cluster: str, container: str, name: str, content: str) -> None:
    """A file in the volume of pods, through a container made for that."""
    image = engine.api.inspect_container(container)["Config"]["Image"]
    host_config = engine.api.create_host_config(binds=[f"{Names(cluster).pods}:/volume"])
    helper = engine.api.create_container(image, host_config=host_config, labels={CLUSTER_LABEL: cluster})["Id"]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        tar.addfile(member, io.BytesIO(content.encode()))
    engine.api.put_archive(helper, "/volume", packed.getvalue())
    engine.api.remove_container(helper)
    engine.close()
