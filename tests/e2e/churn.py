"""A Deployment whose pods come and go without anybody noticing, and the load that would notice."""

from __future__ import annotations

from typing import Any

from testbed.api.kinds import DEPLOYMENT
from testbed.api.objects import Object, metadata, spec, status
from testbed.client.http import HttpClient
from testbed.waiting import wait_until_async

NAME = "churn"
DRAIN_S, GRACE_S = 2, 15
"""A deleted pod serves on for `DRAIN_S`, until all nodes have heard of it, and then ends what it has begun."""
SETTLED_S = 90.0
LOCUSTFILE = '''\
"""Forty requests a second over kept connections, forty over new ones."""

from locust import constant_throughput, task

from testbed.loadgen.user import RawHttpUser


class Kept(RawHttpUser):
    wait_time = constant_throughput(4)

    @task
    def ask(self) -> None:
        self.get("/hostname", name="kept")


class New(RawHttpUser):
    wait_time = constant_throughput(4)
    headers = {"Connection": "close"}

    @task
    def ask(self) -> None:
        self.get("/hostname", name="new")
'''
USERS, REQUESTS_PER_S = 20, 80


def service() -> Object:
    """A ClusterIP in front of the Deployment."""
    ports = [{"name": "http", "port": 80, "targetPort": 80}]
    return _named("v1", "Service", {"selector": {"app": NAME}, "ports": ports})


def deployment(replicas: int) -> Object:
    """Web servers that are ready when they answer, and end as a server should: late, and in order."""
    container = {
        "name": "web",
        "image": "testbed/web",
        "ports": [{"name": "http", "containerPort": 80}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1, "failureThreshold": 2},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5},
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_S}}},
    }
    template = {
        "metadata": {"labels": {"app": NAME}},
        "spec": {"terminationGracePeriodSeconds": GRACE_S, "containers": [container]},
    }
    rolling = {"maxSurge": "50%", "maxUnavailable": 0}
    return _named(
        "apps/v1",
        "Deployment",
        {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": NAME}},
            "strategy": {"rollingUpdate": rolling},
            "template": template,
        },
    )


async def scale(client: HttpClient, replicas: int) -> None:
    """Ask for so many, and wait until there are."""
    await _change(client, {"spec": {"replicas": replicas}})


async def roll(client: HttpClient, generation: int) -> None:
    """Replace every pod by one of another template, and wait until that is done."""
    note = {"metadata": {"annotations": {"testbed/generation": str(generation)}}}
    await _change(client, {"spec": {"template": note}})


async def settled(client: HttpClient) -> None:
    """Until all pods that are asked for are available, and all others are no longer counted."""

    async def check() -> bool:
        found = await client.get(DEPLOYMENT, NAME, "default")
        told, wanted = status(found), spec(found)["replicas"]
        counts = (told.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas"))
        return told.get("observedGeneration") == metadata(found)["generation"] and set(counts) == {wanted}

    await wait_until_async(check, SETTLED_S, f"deployment {NAME} as asked for", every_s=0.1)


async def _change(client: HttpClient, patch: dict[str, Any]) -> None:
    await client.patch(DEPLOYMENT, NAME, patch, "default")
    await settled(client)


def _named(version: str, kind: str, spec: dict[str, Any]) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": NAME, "namespace": "default"}, "spec": spec}
