from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from testbed.api.objects import Object
from testbed.cli.load_pod import DEFAULT_LOCUSTFILE, LoadRequest, config_map, load_pod, read_locustfile, target_url
from testbed.client.fake import FakeClient
from testbed.client.http import HttpClient
from testbed.errors import BadInput

REQUEST = LoadRequest(
    target="service/web", locustfile="text", node="a", host_network=False, users=3, seconds=2.5, namespace="default"
)


async def client_with(*objects: Object) -> HttpClient:
    client = FakeClient()
    for obj in objects:
        await client.create(obj)
    return cast(HttpClient, client)


def service(name: str, *ports: dict[str, Any], address: str = "10.96.0.9") -> Object:
    spec = {"clusterIP": address, "ports": list(ports)}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


HTTP, ADMIN, UDP = {"name": "http", "port": 80}, {"name": "admin", "port": 81}, {"port": 82, "protocol": "UDP"}


@pytest.mark.parametrize(
    ("target", "ports", "url"),
    [
        ("service/web", [HTTP, UDP], "http://10.96.0.9:80"),
        ("svc/web:admin", [HTTP, ADMIN], "http://10.96.0.9:81"),
        ("service/web:8080", [HTTP], "http://10.96.0.9:8080"),
        ("https://192.0.2.1/x", [HTTP], "https://192.0.2.1/x"),
    ],
)
async def test_a_target_is_a_url_or_a_service_with_its_port(target: str, ports: list[Object], url: str) -> None:
    assert await target_url(await client_with(service("web", *ports)), target, "default") == url


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("web", "is no URL, no service/NAME and no pod/NAME"),
        ("service/wob", "there is no Service wob in namespace default; there is headless, web"),
        ("service/web", "has http (80), admin (81); say which one"),
        ("service/web:metrics", "has http (80), admin (81); say which one"),
        ("service/headless", "has no address of its own"),
        ("pod/none", "there is no Pod none in namespace default; there is none"),
    ],
)
async def test_a_target_that_cannot_be_loaded_is_bad_input(target: str, told: str) -> None:
    client = await client_with(service("web", HTTP, ADMIN), service("headless", HTTP, address="None"))
    with pytest.raises(BadInput) as raised:
        await target_url(client, target, "default")
    assert told in str(raised.value)


def test_the_load_pod_runs_the_locustfile_of_its_config_map_once() -> None:
    pod = load_pod("load-1", REQUEST, "http://10.96.0.9:80")
    (container,) = pod["spec"]["containers"]
    assert container["args"] == [
        "run", "/loadtest/locustfile.py", "--host", "http://10.96.0.9:80", "--users", "3", "--seconds", "2.5",
    ]  # fmt: skip
    assert pod["spec"]["nodeName"] == "a"
    assert pod["spec"]["restartPolicy"] == "Never"
    assert config_map("load-1", REQUEST)["data"] == {"locustfile.py": "text"}


def test_a_locustfile_is_read_or_named(tmp_path: Path) -> None:
    assert read_locustfile(None) == DEFAULT_LOCUSTFILE
    compile(DEFAULT_LOCUSTFILE, "locustfile.py", "exec")
    with pytest.raises(BadInput, match=r"locustfile .*none\.py cannot be read: No such file"):
        read_locustfile(tmp_path / "none.py")
