"""What a node daemon answers over HTTP: port 10249, and 10256 for those that only ask whether it is well.

10249  /metrics  /healthz  /proxyMode        as kube-proxy's
       /proxy/service?namespace=&name=       the way of a Service through this node's kernel, as JSON
       /proxy/diff                           what the kernel holds against what it should
10256  /healthz  /livez                      as kube-proxy's
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from testbed.api.objects import Key
from testbed.api.wellknown import HEALTH_PORT, METRICS_PORT
from testbed.errors import BadRequest, NotFound
from testbed.node import exposition
from testbed.node.handles import Listen
from testbed.node.http import NO_SNIFFING, Answer, Request, Respond, document, serving
from testbed.node.seen import Seen, rules_held
from testbed.proxy.virtualport import Endpoint, HealthCheck, VirtualPort


@dataclass(frozen=True)
class Explained:
    """One port of a Service, and its way through the kernel in sentences."""

    port: VirtualPort
    path: Sequence[str]


class Rules(Protocol):
    """What is asked of a node's rules; never at the same time as a sync."""

    async def explain(self, which: Key) -> Sequence[Explained]:
        """Every port of the Service; none where this node serves nothing for it."""
        ...

    async def differences(self) -> Sequence[str]:
        """What the kernel holds against what it should, a line each."""
        ...

    async def rules_held(self) -> Mapping[str, int]:
        """How many rules of the proxy each table of iptables holds; none in other modes."""
        ...

    def health_check(self, which: Key) -> HealthCheck | None:
        """The Service's healthCheckNodePort, where it has one."""
        ...


class Pages:
    """The answers of one node's daemon."""

    def __init__(self, node: str, seen: Seen, rules: Rules) -> None:
        self._node, self._seen, self._rules = node, seen, rules
        self._metrics_port: Mapping[str, Respond] = {
            "/metrics": self._metrics,
            "/healthz": self._ok,
            "/proxyMode": self._mode,
            "/proxy/service": self._service,
            "/proxy/diff": self._diff,
        }
        self._health_port: Mapping[str, Respond] = {"/healthz": self._healthz, "/livez": self._livez}

    async def serve(self, listen: Listen) -> None:
        """Answer on both ports until cancelled. KernelError where one of them is taken."""
        async with AsyncExitStack() as stack:
            for port, pages in ((METRICS_PORT, self._metrics_port), (HEALTH_PORT, self._health_port)):
                await stack.enter_async_context(serving(listen(port), _among(pages)))
            await asyncio.Event().wait()

    async def _metrics(self, _: Request) -> Answer:
        families = [*self._seen.families(), *rules_held(await self._rules.rules_held())]
        return Answer(exposition.render(families), media_type=exposition.CONTENT_TYPE)

    async def _ok(self, _: Request) -> Answer:
        return Answer("ok", headers=NO_SNIFFING)

    async def _mode(self, _: Request) -> Answer:
        return Answer(self._seen.mode, headers=NO_SNIFFING)

    async def _service(self, request: Request) -> Answer:
        which = Key(request.query.get("namespace", "default"), request.query.get("name", ""))
        if not which.name:
            raise BadRequest("say which Service: /proxy/service?namespace=NAMESPACE&name=NAME")
        explained = await self._rules.explain(which)
        if not explained:
            raise NotFound(f"node {self._node} serves nothing for Service {which}")
        check = self._rules.health_check(which)
        return document(
            {
                **self._about(),
                "ports": [{**described(each.port), "path": list(each.path)} for each in explained],
                "healthCheck": check and check._asdict(),
            }
        )

    async def _diff(self, _: Request) -> Answer:
        return document({**self._about(), "differences": list(await self._rules.differences())})

    async def _healthz(self, _: Request) -> Answer:
        """nodeEligible is true always: nothing here takes nodes away by a taint, as cluster autoscalers do."""
        answer = self._health({"nodeEligible": True})
        self._seen.healthz[answer.status] += 1
        return answer

    async def _livez(self, _: Request) -> Answer:
        answer = self._health({})
        self._seen.livez[answer.status] += 1
        return answer

    def _health(self, more: Mapping[str, Any]) -> Answer:
        is_healthy, now = self._seen.is_healthy, datetime.now(UTC)
        updated = now if is_healthy else datetime.fromtimestamp(self._seen.last_synced_s, UTC)
        body = {"lastUpdated": str(updated), "currentTime": str(now), **more}
        return document(body, 200 if is_healthy else 503)

    def _about(self) -> dict[str, str]:
        return {"node": self._node, "mode": self._seen.mode}


def described(port: VirtualPort) -> dict[str, Any]:
    """The port as JSON, by the names that a Service's own fields have."""
    return {
        "name": port.name,
        "protocol": port.protocol.upper(),
        "port": port.port,
        "clusterIP": str(port.cluster_ip),
        "nodePort": port.node_port,
        "externalIPs": [str(address) for address in port.external_ips],
        "loadBalancerIPs": [str(address) for address in port.load_balancer_ips],
        "loadBalancerSourceRanges": [str(network) for network in port.source_ranges],
        "sessionAffinitySeconds": port.affinity_s,
        "internalTrafficPolicy": "Local" if port.is_internal_local else "Cluster",
        "externalTrafficPolicy": "Local" if port.is_external_local else "Cluster",
        "internal": _endpoints(port.internal),
        "external": _endpoints(port.external),
        "serving": _endpoints(sorted(port.serving)),
        "internalRefusal": port.internal_refusal,
        "externalRefusal": port.external_refusal,
    }


def _endpoints(endpoints: Sequence[Endpoint]) -> list[str]:
    return [f"{endpoint.address}:{endpoint.port}" for endpoint in endpoints]


def _among(pages: Mapping[str, Respond]) -> Respond:
    async def respond(request: Request) -> Answer:
        page = pages.get(request.path.rstrip("/"))
        if page is None:
            raise NotFound(f"there is no {request.path} here; there is {', '.join(pages)}")
        return await page(request)

    return respond
