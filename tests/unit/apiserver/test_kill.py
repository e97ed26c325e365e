"""The control plane as a process: killed under load it loses nothing that it acknowledged."""

import asyncio
import signal
import socket
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from testbed.api.kinds import CONFIG_MAP, ENDPOINT_SLICE, ENDPOINTS, NAMESPACE, SERVICE
from testbed.api.objects import name, resource_version
from testbed.client.http import HttpClient
from testbed.errors import ApiError
from testbed.waiting import wait_until_async
from tests.unit.apiserver.parts import SPEC, ControlPlane, config_map, control_plane

WRITERS = 8
WRITES_BEFORE_THE_KILL = 300


def client_of(plane: ControlPlane) -> HttpClient:
    return HttpClient(f"unix://{plane.socket}", plane.token)


async def write_until_refused(client: HttpClient, writer: str, acknowledged: dict[str, int]) -> None:
    """Create, change and delete ConfigMaps; note each by the version that was acknowledged, 0 for a deletion."""
    with suppress(ApiError):
        for number in range(100_000):
            which = f"{writer}-{number}"
            created = await client.create(config_map(which, fill="x" * 1000))
            acknowledged[which] = resource_version(created)
            created["data"]["more"] = "y"
            acknowledged[which] = resource_version(await client.update(created))
            if number % 3 == 0:
                del acknowledged[which]  # from here on it may or may not be there
                await client.delete(CONFIG_MAP, which, "default")
                acknowledged[which] = 0


async def killed_under_load(plane: ControlPlane, turn: int) -> dict[str, int]:
    acknowledged: dict[str, int] = {}
    async with client_of(plane) as client:
        writers = [
            asyncio.create_task(write_until_refused(client, f"{turn}-{n}", acknowledged)) for n in range(WRITERS)
        ]

        async def enough() -> bool:
            return len(acknowledged) >= WRITES_BEFORE_THE_KILL

        await wait_until_async(enough, 20.0, "the load")
        plane.stop(signal.SIGKILL)
        await asyncio.gather(*writers)
    return acknowledged


async def test_no_acknowledged_write_is_lost_by_kill_9(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        for turn in range(3):
            acknowledged = await killed_under_load(plane, turn)
            plane.start()
            async with client_of(plane) as client:
                listed = await client.list(CONFIG_MAP, "default")
            found = {name(obj): resource_version(obj) for obj in listed.items}
            lost = {which: v for which, v in acknowledged.items() if v and found.get(which, 0) < v}
            assert not lost
            assert not [which for which, version in acknowledged.items() if version == 0 and which in found]
            assert listed.resource_version >= max(acknowledged.values())


async def test_a_watch_goes_on_after_kill_9_where_it_was(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        async with client_of(plane) as client:
            since = (await client.list(CONFIG_MAP)).resource_version
            await client.create(config_map("before"))
        plane.stop(signal.SIGKILL)
        plane.start()
        async with client_of(plane) as client, asyncio.timeout(5):
            await client.create(config_map("after"))
            seen = []
            async for event in client.watch(CONFIG_MAP, "default", since=since):
                seen.append((event.type, name(event.object)))
                if len(seen) == 2:
                    break
    assert seen == [("ADDED", "before"), ("ADDED", "after")]


async def test_it_begins_with_what_every_cluster_has(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        async with client_of(plane) as client:
            spaces = {name(obj) for obj in (await client.list(NAMESPACE)).items}
            settings = await client.get(CONFIG_MAP, "testbed", "kube-system")
            kubernetes = await client.get(SERVICE, "kubernetes", "default")
            endpoints = await client.get(ENDPOINTS, "kubernetes", "default")
            slices = await client.list(
                ENDPOINT_SLICE, "default", label_selector="kubernetes.io/service-name=kubernetes"
            )
    assert spaces == {"default", "kube-system", "kube-node-lease", "kube-public"}
    assert "198.18.0.2" in settings["data"]["spec.json"]
    assert kubernetes["spec"]["clusterIP"] == str(SPEC.services.kubernetes)
    assert endpoints["subsets"][0]["addresses"] == [{"ip": str(SPEC.underlay.control_plane)}]
    assert slices.items[0]["endpoints"][0]["addresses"] == [str(SPEC.underlay.control_plane)]


async def test_sigterm_ends_it_at_once_though_watches_are_open(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        async with client_of(plane) as client:
            watch = aiter(client.watch(CONFIG_MAP, since=(await client.list(CONFIG_MAP)).resource_version))
            await client.create(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default"}}
            )
            assert (await anext(watch)).type == "ADDED"
            async with asyncio.timeout(2):
                code = await asyncio.to_thread(plane.stop)
            with pytest.raises(StopAsyncIteration):
                await anext(watch)
    assert code == 0


async def test_it_serves_tls_on_a_socket_that_it_inherits_and_again_after_a_restart(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, control_plane(tmp_path, listener) as plane:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        for number in (signal.SIGTERM, signal.SIGKILL):
            async with HttpClient(url, plane.token, ca=(tmp_path / "ca.crt").read_bytes()) as client:
                assert (await client.list(NAMESPACE)).items
            plane.stop(number)
            plane.start()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b"this is no database, and never was one" * 40), "cannot be read"),
        (lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 9"), "has format 9"),
    ],
    ids=["damaged", "another format"],
)
def test_a_store_that_cannot_be_used_is_one_sentence_and_no_traceback(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    (tmp_path / "data").mkdir()
    spoil(tmp_path / "data/store.db")
    plane = ControlPlane(tmp_path)
    with pytest.raises(AssertionError):
        plane.start()
    log = (tmp_path / "log").read_text()
    assert said in log
    assert "Traceback" not in log
    assert plane.process is not None
    assert plane.process.returncode == 4
