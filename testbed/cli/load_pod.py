"""A load pod: made for one run of a locustfile, followed to its end, and deleted again, whatever happens."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.api.kinds import CONFIG_MAP, NODE, POD, SERVICE
from testbed.api.objects import Object, spec, status
from testbed.errors import BadInput, CommandFailed, NotFound, TimedOut
from testbed.loadgen.records import LoadRecord
from testbed.runtime.readiness import pod_state
from testbed.waiting import wait_until_async

if TYPE_CHECKING:
    from testbed.client.http import HttpClient
    from testbed.runtime.protocol import Progress

DEFAULT_LOCUSTFILE = '''\
"""GET / over one kept connection per user, as fast as the answers come."""

from testbed.loadgen.user import RawHttpUser


class Get(RawHttpUser):
    """Everything is inherited."""
'''
Say = Callable[[str], None]
LABEL = "testbed/load"
MOUNT = "/loadtest"
START_TIMEOUT_S = 60.0
_PROGRESS = re.compile(r"\s*[\d.]+ s  ")


@dataclass(frozen=True)
class LoadRequest:
    """What to load, from where, and how."""

    target: str
    locustfile: str
    """Its text."""
    node: str
    host_network: bool
    users: int
    seconds: float
    namespace: str


def read_locustfile(file: Path | None) -> str:
    """The text of a locustfile, or of the one that is used where none is given."""
    if file is None:
        return DEFAULT_LOCUSTFILE
    try:
        text = file.read_text(encoding="utf-8")
        compile(text, str(file), "exec")
    except OSError as error:
        raise BadInput(f"locustfile {file} cannot be read: {error.strerror}") from None
    except SyntaxError as error:
        raise BadInput(f"{file}:{error.lineno}: is not Python: {error.msg}") from None
    return text


async def run_load(client: HttpClient, request: LoadRequest, progress: Progress, say: Say) -> LoadRecord:
    """Run it in a pod of its own and return what it measured; CommandFailed with its last words if it did not.

    `say` gets every line that the locustfile itself prints.
    """
    await _check_node(client, request.node)
    url = await target_url(client, request.target, request.namespace)
    name = f"load-{secrets.token_hex(3)}"
    progress(f"starting pod {name} to load {url}")
    try:
        await client.create(config_map(name, request))
        await client.create(load_pod(name, request, url))
        await _started(client, request.namespace, name)
        return await _followed(client, request.namespace, name, progress, say)
    finally:
        for kind in (POD, CONFIG_MAP):
            with suppress(NotFound):
                await client.delete(kind, name, request.namespace, grace_period_s=0)


async def target_url(client: HttpClient, target: str, namespace: str) -> str:
    """`http://ADDRESS:PORT` of a URL, `service/NAME[:PORT]` or `pod/NAME[:PORT]`; a port by number or by name."""
    if "://" in target:
        return target
    sort, slash, rest = target.partition("/")
    name, _, port = rest.partition(":")
    if not slash or sort not in ("service", "svc", "pod"):
        raise BadInput(f"target {target!r} is no URL, no service/NAME and no pod/NAME")
    kind = POD if sort == "pod" else SERVICE
    try:
        obj = await client.get(kind, name, namespace)
    except NotFound:
        names = ", ".join(item["metadata"]["name"] for item in (await client.list(kind, namespace)).items) or "none"
        raise BadInput(f"there is no {kind.kind} {name} in namespace {namespace}; there is {names}") from None
    ports = _pod_ports(obj) if kind == POD else _service_ports(obj)
    address = status(obj).get("podIP") if kind == POD else spec(obj).get("clusterIP")
    if not address or address == "None":
        raise BadInput(f"{kind.kind} {name} has no address of its own to be loaded at")
    return f"http://{address}:{_port(f'{kind.kind} {name}', ports, port)}"


def _pod_ports(pod: Object) -> dict[str, int]:
    ports = [port for container in spec(pod).get("containers") or [] for port in container.get("ports") or []]
    return {port.get("name") or str(port["containerPort"]): port["containerPort"] for port in ports if _is_tcp(port)}


def _service_ports(service: Object) -> dict[str, int]:
    return {
        port.get("name") or str(port["port"]): port["port"]
        for port in spec(service).get("ports") or []
        if _is_tcp(port)
    }


def _is_tcp(port: dict[str, Any]) -> bool:
    return bool(port.get("protocol", "TCP") == "TCP")


def _port(what: str, ports: dict[str, int], wanted: str) -> int:
    if wanted.isdigit():
        return int(wanted)
    if wanted in ports:
        return ports[wanted]
    if not wanted and len(ports) == 1:
        return next(iter(ports.values()))
    known = ", ".join(f"{name} ({number})" for name, number in ports.items()) or "no TCP port"
    raise BadInput(f"{what} has {known}; say which one, as in service/web:80")


async def _check_node(client: HttpClient, node: str) -> None:
    names = [obj["metadata"]["name"] for obj in (await client.list(NODE)).items] if node else []
    if node and node not in names:
        raise BadInput(f"there is no node {node}; there is {', '.join(sorted(names))}")


def config_map(name: str, request: LoadRequest) -> Object:
    """The locustfile, as the load pod mounts it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": request.namespace, "labels": {LABEL: name}},
        "data": {"locustfile.py": request.locustfile},
    }


def load_pod(name: str, request: LoadRequest, url: str) -> Object:
    """The pod that runs the locustfile once."""
    run = ["run", f"{MOUNT}/locustfile.py", "--host", url, "--users", str(request.users), "--seconds"]
    container = {
        "name": "load",
        "image": "testbed/load",
        "args": [*run, f"{request.seconds:g}"],
        "volumeMounts": [{"name": "loadtest", "mountPath": MOUNT}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": request.namespace, "labels": {LABEL: name}},
        "spec": {
            **({"nodeName": request.node} if request.node else {}),
            "hostNetwork": request.host_network,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [{"name": "loadtest", "configMap": {"name": name}}],
        },
    }


async def _started(client: HttpClient, namespace: str, name: str) -> None:
    async def has_started() -> bool:
        pod = await client.get(POD, name, namespace)
        containers: list[Object] = status(pod).get("containerStatuses") or []
        states = [state for one in containers for state in one.get("state") or {}]
        return "running" in states or "terminated" in states

    try:
        await wait_until_async(has_started, START_TIMEOUT_S, f"the start of load pod {name}")
    except TimedOut as error:
        raise TimedOut(f"{error}: it {pod_state(await client.get(POD, name, namespace))}") from None


async def _followed(client: HttpClient, namespace: str, name: str, progress: Progress, say: Say) -> LoadRecord:
    """What the pod prints is progress, then the record as its last line; the rest is the locustfile's own words."""
    last = "nothing"
    async for line in _lines(client.logs(namespace, name, follow=True)):
        if line.startswith("{"):
            return LoadRecord.from_json(json.loads(line))
        if _PROGRESS.match(line):
            progress(line.strip())
        elif line.strip():
            say(line)
            last = line.strip()
    raise CommandFailed(f"the load pod ended without a result; its last words were: {last}")


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
