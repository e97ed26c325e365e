"""The anchor for real: processes, namespaces, roots, and its end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import AlreadyExists, MachineLacks, NotFound, TestbedError, TimedOut
from testbed.runtime import anchors
from testbed.waiting import wait_until
from tests.kernel.anchors import BEFORE, Running, running_anchor

SOON_S = 10.0
PATH = "/usr/local/bin:/usr/bin:/bin"


@pytest.fixture(scope="module")
def anchor() -> Iterator[Running]:
    try:
        with running_anchor() as running:
            yield running
    except MachineLacks as error:
        pytest.skip(str(error))


def plan(anchor: Running, name: str, *argv: str, **fields: Any) -> dict[str, Any]:
    """A process in namespace a."""
    log = str(anchor.dirs.state / f"{name}.log")
    return {"id": name, "argv": list(argv), "env": {"PATH": PATH}, "netns": str(anchor.netns()), "log": log, **fields}


def own_root(anchor: Running, name: str, *lower: Path, mounts: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A root for a container."""
    directory = anchor.dirs.run / "private/containers" / name
    layers = anchor.dirs.run / "private/images"
    return {"directory": str(directory), "lower": list(map(str, lower)), "layers": str(layers), "mounts": mounts or []}


def output(anchor: Running, name: str, *argv: str, **fields: Any) -> str:
    """What a program prints, run to its end."""
    anchor.client.run(plan(anchor, name, *argv, **fields))
    anchor.client.wait(name, SOON_S)
    return (anchor.dirs.state / f"{name}.log").read_text()


def processes_of(anchor: Running, name: str) -> list[int]:
    """The pids, in this test's namespace, whose arguments have that word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and name.encode() in _arguments(entry):
            found.append(int(entry.name))
    return found


def _arguments(entry: Path) -> list[bytes]:
    try:
        return (entry / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def test_a_process_that_ends_is_remembered_with_its_exit_code_and_its_log(anchor: Running) -> None:
    assert output(anchor, "greeter", "sh", "-c", "echo hello; echo world >&2; exit 3") == "hello\nworld\n"
    ended = anchor.client.wait("greeter", SOON_S)
    assert (ended.exit_code, ended.pid) == (3, 0)
    assert ended.finished >= ended.started > 0


def test_a_process_ended_by_a_signal_has_128_and_its_number(anchor: Running) -> None:
    anchor.client.run(plan(anchor, "sleeper", "sleep", "1000"))
    with pytest.raises(TimedOut):
        anchor.client.wait("sleeper", 0.05)
    anchor.client.signal("sleeper", signal.SIGTERM)
    assert anchor.client.wait("sleeper", SOON_S).exit_code == 128 + signal.SIGTERM


def test_a_program_that_does_not_exist_says_so(anchor: Running) -> None:
    with pytest.raises(TestbedError, match=r"No such file or directory.*nosuch"):
        anchor.client.run(plan(anchor, "nosuch", "nosuch-program"))
    (ended,) = [process for process in anchor.client.list()[0] if process.id == "nosuch"]
    assert (ended.exit_code, ended.pid) == (127, 0)


def test_a_name_is_taken_until_it_is_removed(anchor: Running) -> None:
    anchor.client.run(plan(anchor, "once", "true"))
    with pytest.raises(AlreadyExists):
        anchor.client.run(plan(anchor, "once", "true"))
    anchor.client.remove("once")
    anchor.client.remove("once")
    anchor.client.run(plan(anchor, "once", "true"))


def test_a_process_to_be_restarted_comes_back_until_it_is_removed(anchor: Running) -> None:
    anchor.client.run(plan(anchor, "phoenix", "sh", "-c", "sleep 0.01", restart=True))

    def restarted_twice() -> bool:
        return any(process.id == "phoenix" and process.restarts >= 2 for process in anchor.client.list()[0])

    wait_until(restarted_twice, SOON_S, "two restarts")
    anchor.client.remove("phoenix")
    with pytest.raises(NotFound):
        anchor.client.wait("phoenix", SOON_S)


def test_what_a_container_left_running_ends_with_it(anchor: Running) -> None:
    script = "setsid sh -c 'exec sleep 7654321' & sleep 1000"
    anchor.client.run(plan(anchor, "parent", "sh", "-c", script, root=own_root(anchor, "parent")))
    wait_until(lambda: processes_of(anchor, "7654321"), SOON_S, "the child")
    anchor.client.signal("parent", signal.SIGTERM)
    wait_until(lambda: not processes_of(anchor, "7654321"), SOON_S, "the child's end")


def test_the_end_of_a_container_disturbs_no_other_that_has_just_begun(anchor: Running) -> None:
    """The kernel gives the number of a mount namespace that is gone to the next one that is made."""
    for number in range(30):
        brief, lasting = f"brief-{number}", f"lasting-{number}"
        anchor.client.run(plan(anchor, brief, "true", root=own_root(anchor, brief)))
        anchor.client.run(plan(anchor, lasting, "sleep", "1000", root=own_root(anchor, lasting)))
    anchor.client.wait("brief-29", SOON_S)
    ended = [process.id for process in anchor.client.list()[0] if process.id.startswith("lasting") and not process.pid]
    assert ended == []


def test_a_watch_tells_of_a_change(anchor: Running) -> None:
    _, generation = anchor.client.list()
    with pytest.raises(TimedOut):
        anchor.client.watch(generation, 0.05)
    anchor.client.run(plan(anchor, "news", "true"))
    assert anchor.client.watch(generation, SOON_S) > generation


def test_each_namespace_has_its_own_devices_and_loopback_is_up(anchor: Running) -> None:
    state = output(
        anchor,
        "devices",
        "sh",
        "-c",
        "ls /sys/class/net; cat /sys/class/net/lo/operstate",
        root=own_root(anchor, "devices"),
    )
    assert state.split() == ["lo", "unknown"], "an up loopback says unknown, one that is down says down"


def test_a_namespace_is_gone_when_it_is_deleted(anchor: Running) -> None:
    anchor.netns("brief")
    name = f"testbed-{anchor.cluster}-brief"
    assert name in anchor.client.netns()
    anchor.client.delete_netns([name])
    anchor.client.delete_netns([name])
    assert name not in anchor.client.netns()


def test_a_root_shows_the_machine_below_the_image_and_keeps_writes_to_itself(anchor: Running, tmp_path: Path) -> None:
    image = tmp_path / "files"
    (image / "usr/local/bin").mkdir(parents=True)
    program = image / "usr/local/bin/tb-d-program"
    program.write_text(
        "#!/bin/sh\necho from the image; cat /etc/hostname >/dev/null; touch /tmp/tb-d-written /tb-d-written; ls /"
    )
    program.chmod(0o755)
    layer = {
        "argv": ["cp", "-r", str(image), str(anchor.dirs.run / "private/layer")]
    }  # overlayfs refuses nested layers
    output(anchor, "copy", *layer["argv"])
    root = own_root(anchor, "rooted", anchor.dirs.run / "private/layer")
    said = output(anchor, "rooted", "tb-d-program", root=root)
    assert said.startswith("from the image\n")
    assert "tb-d-written" in said
    assert not Path("/tmp/tb-d-written").exists()
    assert not Path("/tb-d-written").exists()


def test_what_a_removed_container_wrote_is_discarded(anchor: Running) -> None:
    root = own_root(anchor, "writer")
    anchor.client.run(plan(anchor, "writer", "sh", "-c", "echo much >/tmp/file; exec sleep 1000", root=root))
    anchor.client.remove("writer")

    def is_gone() -> bool:
        name = f"look-{anchor.client.list()[1]}"
        return "No such file" in output(anchor, name, "ls", root["directory"])

    wait_until(is_gone, SOON_S, "the end of the container's files")


def test_mounts_land_inside_the_root_and_nowhere_else(anchor: Running, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("192.0.2.1 there\n")
    (tmp_path / "volume").mkdir()
    mounts = [
        {"source": str(tmp_path / "hosts"), "path": "/etc/hosts", "read_only": True},
        {"source": str(tmp_path / "volume"), "path": "/var/run/deep/volume", "read_only": False},
    ]
    script = "cat /etc/hosts; echo data >/var/run/deep/volume/file; echo x >>/etc/hosts"
    said = output(anchor, "mounted", "sh", "-c", script, root=own_root(anchor, "mounted", mounts=mounts))
    assert said.startswith("192.0.2.1 there\n")
    assert "Read-only file system" in said
    assert (tmp_path / "volume/file").read_text() == "data\n"
    assert not Path("/run/deep").exists()


def test_a_container_has_only_the_capabilities_it_was_given(anchor: Running) -> None:
    script = "grep CapEff /proc/self/status"
    said = output(anchor, "modest", "sh", "-c", script, capabilities=["NET_RAW", "CHOWN"])
    assert int(said.split()[1], 16) == 1 << 13 | 1 << 0


def test_a_container_has_a_hostname_of_its_own(anchor: Running) -> None:
    assert output(anchor, "named", "hostname", hostname="pod-7") == "pod-7\n"
    assert socket.gethostname() != "pod-7"


def test_the_kept_sockets_are_given_to_the_process_that_asks_for_them(anchor: Running) -> None:
    script = "import socket; print(*(socket.socket(fileno=fd).getsockname() for fd in (3, 4)), sep='\\n')"
    said = output(anchor, "server", "python3", "-c", script, keep_fds=True)
    assert said.splitlines() == [str(("127.0.0.1", anchor.found.port)), str(anchor.dirs.api_socket)]
    assert "3" not in output(anchor, "other", "ls", "/proc/self/fd").split()[:-1], "nobody else inherits it"


def test_a_client_that_talks_nonsense_does_no_harm(anchor: Running) -> None:
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\2[]", b"\0\0\0\1x", b'\0\0\0\x0e{"op": "exec"}'):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(anchor.dirs.anchor_socket))
            client.sendall(nonsense)
    assert anchor.client.notes() == {}


def test_an_anchor_is_found_by_its_arguments_and_remembers_without_a_file(anchor: Running) -> None:
    found = anchor.found
    assert found.dirs == anchor.dirs
    assert found.before == BEFORE


def test_the_end_of_an_anchor_is_the_end_of_everything_in_it() -> None:
    try:
        with running_anchor() as running:
            running.client.run(plan(running, "keeper", "sleep", "7654322", restart=True))
            found = running.found
            namespaces = anchors.namespaces_of(found)
            assert anchors.processes_in(namespaces)
            anchors.end(found)
            anchors.end(found)
            assert not anchors.processes_in(namespaces)
            assert processes_of(running, "7654322") == []
            with pytest.raises(NotFound):
                running.client.list()
    except MachineLacks as error:
        pytest.skip(str(error))


def test_a_machine_that_refuses_namespaces_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    liar = tmp_path / "python"
    liar.write_text("#!/bin/sh\necho 'testbed-anchor: unshare: Operation not permitted' >&2; exit 1\n")
    liar.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(liar))
    with pytest.raises(MachineLacks, match="Operation not permitted"), running_anchor():
        pass


def test_uid_of_this_test_is_root_inside(anchor: Running) -> None:
    assert output(anchor, "who", "id", "-u") == "0\n"
    assert Path(f"/proc/{anchor.found.pid}").stat().st_uid == os.geteuid()
