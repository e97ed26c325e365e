"""healthCheckNodePort: where a load balancer learns whether a node has an endpoint of its own for a Service.

A listener to each Service, on every address of the node or on those that serve node ports: 200 where the node has
local endpoints that are ready and its proxy is well, 503 otherwise (kube-proxy's pkg/proxy/healthcheck).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.listening import ANY
from testbed.node.handles import Listen
from testbed.node.http import NO_SNIFFING, Answer, Request, document, serving
from testbed.proxy.virtualport import HealthCheck, Here

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Listener:
    port: int
    addresses: Sequence[IPv4Address]
    stop: AsyncExitStack


class HealthChecks:
    """Those of one node. `sync` in a loop keeps trying a port that somebody else has."""

    def __init__(self, listen: Listen, is_healthy: Callable[[], bool]) -> None:
        self._listen, self._is_healthy = listen, is_healthy
        self._listeners: dict[Key, _Listener] = {}
        self._wanted: Mapping[Key, HealthCheck] = {}

    async def sync(self, wanted: Mapping[Key, HealthCheck], addresses: Sequence[IPv4Address] = (ANY,)) -> None:
        """Listen for exactly these, at these addresses."""
        self._wanted = wanted
        for which, has in list(self._listeners.items()):
            if which not in wanted or (has.port, has.addresses) != (wanted[which].port, addresses):
                await self._listeners.pop(which).stop.aclose()
        for which in wanted.keys() - self._listeners.keys():
            try:
                self._listeners[which] = await self._open(which, wanted[which].port, addresses)
            except KernelError as error:
                log.warning("the health check of Service %s: %s", which, error)

    async def close(self) -> None:
        """Listen no more."""
        await self.sync({})

    async def _open(self, which: Key, port: int, addresses: Sequence[IPv4Address]) -> _Listener:
        async with AsyncExitStack() as stack:
            for address in addresses:
                await stack.enter_async_context(serving(self._listen(port, address), partial(self._answer, which)))
            return _Listener(port, addresses, stack.pop_all())

    async def _answer(self, which: Key, _: Request) -> Answer:
        count = self._wanted[which].local_endpoints if which in self._wanted else 0
        is_healthy = self._is_healthy()
        body = {
            "service": {"namespace": which.namespace, "name": which.name},
            "localEndpoints": count,
            "serviceProxyHealthy": is_healthy,
        }
        headers = {**NO_SNIFFING, "X-Load-Balancing-Endpoint-Weight": str(count)}
        return document(body, 200 if count and is_healthy else 503, headers)


def addresses(here: Here) -> tuple[IPv4Address, ...]:
    """Where a node's health checks listen: everywhere, or at those of its addresses that serve node ports."""
    if not here.node_port_addresses:
        return (ANY,)
    own = (here.address, here.pod_cidr[1])
    return tuple(address for address in own if any(address in network for network in here.node_port_addresses))
