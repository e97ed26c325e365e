"""Does everybody reach everybody? From inside every pod, a new connection to each pod and each Service."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from testbed.api.kinds import POD, SERVICE
from testbed.api.objects import Object, is_deleting, labels, name, namespace, spec, status
from testbed.client.http import HttpClient
from tests.e2e.asking import Answer, Question, ask

SIDE_BY_SIDE = 8
NOBODY_LISTENS = 80
"""Asked of pods that name no port: their own kernel refuses, which shows the way as well as an answer would."""


@dataclass(frozen=True)
class Target:
    """An address and port to be tried, the outcome that shows that it was reached, and who may answer."""

    what: str
    host: str
    port: int
    protocol: str
    outcome: str
    keeps_source: bool

    def question(self) -> Question:
        """How to ask it, in the words of tests/e2e/inpod.py."""
        where = {"host": self.host, "port": self.port}
        if self.protocol == "UDP":
            return "udp", {**where, "message": "clientip"}
        return ("http", {**where, "path": "/clientip"}) if self.outcome == "OK" else ("tcp", where)


async def everybody_reaches_everybody(client: HttpClient) -> int:
    """Try every pod and Service of the namespace `default` from every pod; the number of tries.

    AssertionError shows the first that failed.

    A server must see the pod's own address, through a Service too, unless a pod asks itself or comes from outside.
    """
    pods = [pod for pod in (await client.list(POD, "default")).items if not is_deleting(pod)]
    services = [s for s in (await client.list(SERVICE, "default")).items if name(s) != "kubernetes"]
    targets = [target for pod in pods for target in _of_pod(pod)]
    targets += [target for service in services for target in _of_service(service, pods)]
    side_by_side = asyncio.Semaphore(SIDE_BY_SIDE)

    async def try_all(pod: Object) -> list[str]:
        async with side_by_side:
            answers = await ask(client, namespace(pod), name(pod), [target.question() for target in targets])
        return [
            mistake
            for target, answer in zip(targets, answers, strict=True)
            if (mistake := _mistake(pod, target, answer))
        ]

    inside = [pod for pod in pods if not spec(pod).get("hostNetwork")]
    mistakes = [mistake for found in await asyncio.gather(*map(try_all, inside)) for mistake in found]
    assert not mistakes, f"{len(mistakes)} of {len(inside) * len(targets)} tries failed:\n" + "\n".join(mistakes[:20])
    return len(inside) * len(targets)


def _of_pod(pod: Object) -> list[Target]:
    what, host = f"pod {name(pod)}", status(pod)["podIP"]
    is_inside = not spec(pod).get("hostNetwork")
    ports = [port for container in spec(pod)["containers"] for port in container.get("ports") or []]
    if not ports:
        return [Target(what, host, NOBODY_LISTENS, "TCP", "REFUSED", keeps_source=False)]
    return [
        Target(what, host, port["containerPort"], port.get("protocol", "TCP"), "OK", keeps_source=is_inside)
        for port in ports
    ]


def _of_service(service: Object, pods: list[Object]) -> list[Target]:
    selector = (spec(service).get("selector") or {}).items()
    behind = [pod for pod in pods if selector <= labels(pod).items()]
    listens = any(container.get("ports") for pod in behind for container in spec(pod)["containers"])
    return [
        Target(
            f"Service {name(service)}",
            spec(service)["clusterIP"],
            port["port"],
            port.get("protocol", "TCP"),
            "OK" if listens else "REFUSED",
            keeps_source=listens,
        )
        for port in spec(service)["ports"]
    ]


def _mistake(pod: Object, target: Target, answer: Answer) -> str:
    who = f"{name(pod)} ({status(pod)['podIP']}) to {target.what} ({target.host}:{target.port}/{target.protocol})"
    if answer["outcome"] != target.outcome:
        return f"{who}: {answer} instead of {target.outcome}"
    seen = str(answer.get("body", "")).strip().rpartition(":")[0] or str(answer.get("body", "")).strip()
    # Through a Service a pod may meet itself, and then its address has to be masked.
    mine = {status(pod)["podIP"]} if target.what.startswith("pod ") else {status(pod)["podIP"], _bridge_of(pod)}
    if target.keeps_source and seen not in mine:
        return f"{who}: the server saw {seen}"
    return ""


def _bridge_of(pod: Object) -> str:
    """The address of the node's bridge, which masks a pod that meets itself: .1 of the /24 that the pod is in."""
    return f"{status(pod)['podIP'].rpartition('.')[0]}.1"
