"""Containers on namespaces: their programs' output, programs run beside them, and where they find things."""

from __future__ import annotations

from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

import pytest

from testbed.agent.netns_sandbox import NetnsSandboxes
from testbed.agent.sandbox import ContainerSpec, ContainerState, ExecSession, Mount
from testbed.errors import MachineLacks, TestbedError
from testbed.waiting import wait_until
from tests.kernel.anchors import Running, running_anchor

SOON_S = 10.0


@pytest.fixture(scope="module")
def anchor() -> Iterator[Running]:
    try:
        with running_anchor() as running:
            yield running
    except MachineLacks as error:
        pytest.skip(str(error))


@pytest.fixture
def sandboxes(anchor: Running) -> NetnsSandboxes:
    return anchor.sandboxes()


def run(
    sandboxes: NetnsSandboxes, uid: str, *command: str, image: str = "testbed/netexec", mounts: tuple[Mount, ...] = ()
) -> ContainerState:
    """A container of a pod of its own, that runs a command."""
    pod = sandboxes.ensure_pod(uid, "default", uid, uid, Path("/none"))
    return sandboxes.start(ContainerSpec(uid, "main", image, pod.netns, "", "", uid, 0, command, mounts=mounts))


def log_of(sandboxes: NetnsSandboxes, state: ContainerState, *, tail: int | None = None, follow: bool = False) -> bytes:
    """What it has printed."""
    return read_to_end(sandboxes.read_log(state.id, tail=tail, follow=follow))


def finish(session: ExecSession) -> tuple[bytes, int]:
    """Its standard output, to the end, and its exit code."""
    read = read_to_end(session.stdout)
    for stream in (session.stdin, session.stderr):
        if stream:
            stream.close()
    return read, session.wait()


def read_to_end(stream: RawIOBase) -> bytes:
    read = b""
    with stream:
        while data := stream.read(4096):
            read += data
    return read


def test_a_log_has_both_streams_in_order(sandboxes: NetnsSandboxes) -> None:
    state = run(sandboxes, "logs", "sh", "-c", "echo one; echo two >&2; echo three; exec sleep 1000")
    wait_until(lambda: log_of(sandboxes, state).count(b"\n") == 3, SOON_S, "three lines")
    assert log_of(sandboxes, state) == b"one\ntwo\nthree\n"
    assert log_of(sandboxes, state, tail=1) == b"three\n"


def test_a_followed_log_ends_with_its_container(sandboxes: NetnsSandboxes) -> None:
    state = run(sandboxes, "follow", "sh", "-c", "echo early; read -r line </dev/null; sleep 0.1; echo late")
    assert log_of(sandboxes, state, follow=True) == b"early\nlate\n"


def test_a_container_is_stopped_by_the_signal_of_its_image(sandboxes: NetnsSandboxes) -> None:
    script = "trap 'echo quit; exit 0' QUIT; echo ready; while :; do sleep 0.01; done"
    for image, end in (("testbed/web", b"ready\nquit\n"), ("testbed/netexec", b"ready\n")):
        state = run(sandboxes, f"stop-{image.removeprefix('testbed/')}", "sh", "-c", script, image=image)
        wait_until(lambda state=state: log_of(sandboxes, state), SOON_S, "a trap")  # type: ignore[misc]
        sandboxes.stop(state.id, SOON_S)
        assert log_of(sandboxes, state) == end


def test_a_program_run_beside_shares_everything_with_the_container(sandboxes: NetnsSandboxes) -> None:
    state = run(sandboxes, "shared", "sh", "-c", "echo secret >/tmp/tb-d-own; exec sleep 1000")
    session = sandboxes.exec(state.id, ["sh", "-c", "sleep 0.1; cat /tmp/tb-d-own; hostname"], stdin=False, tty=False)
    assert finish(session) == (b"secret\nshared\n", 0)


def test_input_reaches_a_program_and_its_exit_code_comes_back(sandboxes: NetnsSandboxes) -> None:
    state = run(sandboxes, "input", "sleep", "1000")
    session = sandboxes.exec(state.id, ["sh", "-c", "cat; exit 5"], stdin=True, tty=False)
    assert session.stdin
    session.stdin.write(b"through")
    session.stdin.close()
    assert finish(session) == (b"through", 5)


def test_a_terminal_has_a_size(sandboxes: NetnsSandboxes) -> None:
    state = run(sandboxes, "terminal", "sleep", "1000")
    session = sandboxes.exec(state.id, ["sh", "-c", "read -r _; stty size"], stdin=True, tty=True)
    session.resize(100, 30)
    assert session.stdin
    session.stdin.write(b"\n")
    printed, code = finish(session)
    assert (printed.split()[-2:], code) == ([b"30", b"100"], 0)


def test_killing_a_session_ends_its_program(sandboxes: NetnsSandboxes) -> None:
    state = run(sandboxes, "killed", "sleep", "1000")
    session = sandboxes.exec(state.id, ["sleep", "1000"], stdin=False, tty=False)
    session.kill()
    assert finish(session) == (b"", 128 + 9)


def test_a_program_that_does_not_exist_cannot_be_run_beside(sandboxes: NetnsSandboxes) -> None:
    state = run(sandboxes, "absent", "sleep", "1000")
    with pytest.raises(TestbedError, match="No such file"):
        sandboxes.exec(state.id, ["nosuch-program"], stdin=False, tty=False)


def test_a_container_whose_program_cannot_be_run_has_ended(sandboxes: NetnsSandboxes) -> None:
    state = run(sandboxes, "broken", "nosuch-program")
    assert (state.is_running, state.exit_code) == (False, 127)
    assert "nosuch-program" in state.reason


def test_the_files_of_an_image_lie_over_the_machines(sandboxes: NetnsSandboxes, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 10.96.0.10\n")
    mounts = (Mount(tmp_path / "resolv.conf", "/etc/resolv.conf"),)
    state = run(sandboxes, "image", "sh", "-c", "ls /usr/local/bin/netexec; cat /etc/resolv.conf", mounts=mounts)
    assert log_of(sandboxes, state, follow=True) == b"/usr/local/bin/netexec\nnameserver 10.96.0.10\n"


def test_a_program_that_ignores_sigterm_is_killed_after_its_grace(sandboxes: NetnsSandboxes) -> None:
    state = run(sandboxes, "stubborn", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done")
    wait_until(lambda: log_of(sandboxes, state), SOON_S, "the trap")
    sandboxes.stop(state.id, 0.1)
    (ended,) = [each for each in sandboxes.containers() if each.id == state.id]
    assert ended.exit_code == 128 + 9
