"""Two nodes with pods, a switch, and a client outside the cluster: what a proxy mode's packets are judged in.

```
pods a, b, c ─ node ─┐            a, b, c: 10.244.1.2 … .4    node: 198.18.0.2, 192.0.2.2
                     ├─ switch ─ client                       client: 198.18.0.9, a stranger to both CIDRs
pod  d ───── other ──┘            d: 10.244.2.2               other: 198.18.0.3
```

Every pod answers at TCP and UDP 8080 with its name and the address it sees. The mode under test serves on `node` alone:
what the client sends to Service addresses is routed there.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from testbed.api.objects import Key
from testbed.kernel.links import Hop, Nft
from testbed.kernel.sysctl import set_sysctls
from testbed.network import masquerade, podlink
from testbed.network.sysctls import ensure_sysctls
from testbed.proxy.mode import Mode
from testbed.proxy.virtualport import Endpoint, Here, Ports, VirtualPort
from tests.kernel.lab import Lab
from tests.tiers import SLOWNESS

NODE, OTHER, CLIENT, SWITCH = "tb-c-node", "tb-c-other", "tb-c-client", "tb-c-switch"
PODS = {"a": "10.244.1.2", "b": "10.244.1.3", "c": "10.244.1.4", "d": "10.244.2.2"}
ADDRESSES = {**PODS, "node": "198.18.0.2", "client": "198.18.0.9", "other": "198.18.0.3"}
SECOND_ADDRESS = "192.0.2.2"
"""Of the node, on its underlay device."""
TARGET = 8080
SILENCE_S = 0.25 * SLOWNESS
"""What is dropped is waited for so long."""

HERE = Here(
    node="node",
    address=IPv4Address(ADDRESSES["node"]),
    pod_cidr=IPv4Network("10.244.1.0/24"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    service_cidr=IPv4Network("10.96.0.0/16"),
)
_OTHER_CIDR = IPv4Network("10.244.2.0/24")
_TO_NODE = ("10.96.0.0/16", "198.51.100.0/24", "192.0.2.0/24")
"""Cluster, external and load balancer addresses, and the node's second address."""

Make = Callable[[Lab, str], Mode]
"""The mode under test, in the place of that name."""


@dataclass(frozen=True)
class Answer:
    """Who answered, and whom it saw."""

    pod: str
    source: str


class ProxyLab:
    """The cluster of the picture, and a mode that has loaded nothing yet."""

    def __init__(self, lab: Lab, make: Make) -> None:
        self.lab = lab
        self._make(lab)
        self.nft: Nft = lab.nft(NODE)
        self.mode = make(lab, NODE)

    def restarted(self, make: Make) -> None:
        """As if the node daemon had been killed and started again."""
        self.mode = make(self.lab, NODE)

    def ask(
        self,
        source: str,
        address: str,
        port: int,
        protocol: str = "tcp",
        *,
        timeout_s: float = 2.0,
        source_port: int = 0,
    ) -> Answer:
        """A new connection from a pod, `node`, `client` or `other`; OSError where nobody answers."""
        place = _place(source)
        said = self.lab.ask(place, protocol, address, port, timeout_s=timeout_s, source=source_port)
        return Answer(*said.split())

    def connected(self, source: str, address: str, port: int) -> socket.socket:
        """A TCP connection that has said nothing yet; its server answers the first byte."""
        sock = self.lab.inside(_place(source), lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.settimeout(2.0)
        sock.connect((address, port))
        return sock

    def outcome(self, source: str, address: str, port: int, protocol: str = "tcp", times: int = 1) -> set[str]:
        """What becomes of that many connections: names of pods, with `~` where the source was masqueraded; `refused`,
        `silent` or `unreachable`."""
        return {self._outcome(source, address, port, protocol) for _ in range(times)}

    def _outcome(self, source: str, address: str, port: int, protocol: str) -> str:
        try:
            answer = self.ask(source, address, port, protocol, timeout_s=SILENCE_S)
        except (ConnectionRefusedError, PermissionError):  # to the node's own processes the kernel says EPERM of UDP
            return "refused"
        except TimeoutError:
            return "silent"
        is_own = answer.source == ADDRESSES[source] or source == "node"
        return answer.pod if is_own else f"{answer.pod}~"

    def _make(self, lab: Lab) -> None:
        for name, at in ((NODE, "node"), (OTHER, "other"), (CLIENT, "client")):
            lab.plug(name, f"{ADDRESSES[at]}/16")
        for name in (NODE, OTHER):
            ensure_sysctls(lab.place(name))
            set_sysctls(lab.place(name), {"net.ipv4.icmp_ratelimit": "0"})  # or a second refusal would be silence
            lab.nft(name).load(masquerade.render(HERE.cluster_cidr, ""))
        links, others = lab.links(NODE), lab.links(OTHER)
        links.set_addresses("eth0", [IPv4Interface(f"{ADDRESSES['node']}/16"), IPv4Interface(f"{SECOND_ADDRESS}/32")])
        podlink.ensure_bridge(links, HERE.pod_cidr, 1450)
        podlink.ensure_bridge(others, _OTHER_CIDR, 1450)
        _add_route(lab, NODE, _OTHER_CIDR, ADDRESSES["other"])
        _add_route(lab, OTHER, HERE.pod_cidr, ADDRESSES["node"])
        for network in _TO_NODE:
            _add_route(lab, CLIENT, IPv4Network(network), ADDRESSES["node"])
        for pod, address in PODS.items():
            node, cidr = (others, _OTHER_CIDR) if pod == "d" else (links, HERE.pod_cidr)
            podlink.attach(
                node,
                lab.place(_place(pod)),
                device=f"veth{pod}",
                address=IPv4Address(address),
                gateway=podlink.gateway(cidr),
                mtu=1450,
            )


@contextmanager
def proxy_lab(lab: Lab, make: Make) -> Iterator[ProxyLab]:
    """The lab, with every pod answering."""
    found = ProxyLab(lab, make)
    with ExitStack() as servers:
        for pod in PODS:
            for protocol in ("tcp", "udp"):
                servers.enter_context(lab.serve(_place(pod), protocol, TARGET, pod))
        yield found


def port(number: int, pods: str, *, local: str = "", protocol: str = "tcp", **more: object) -> VirtualPort:
    """10.96.0.NUMBER:80, whose endpoints are these pods, and on this node those of `local`."""
    cluster, here = endpoints(pods), endpoints(local)
    base = VirtualPort(
        service=Key("default", f"s{number}"),
        name="",
        protocol=protocol,
        cluster_ip=IPv4Address("10.96.0.0") + number,
        port=80,
        cluster=cluster,
        local=here,
        has_endpoints=bool(cluster or here),
        serving=frozenset(cluster + here),
    )
    return replace(base, **more)  # type: ignore[arg-type]


def both(number: int, pods: str, **more: object) -> tuple[VirtualPort, ...]:
    """`port` for TCP and for UDP."""
    local = str(more.pop("local", ""))
    return tuple(port(number, pods, local=local, protocol=protocol, **more) for protocol in ("tcp", "udp"))


def ports(*groups: tuple[VirtualPort, ...]) -> Ports:
    """By Service."""
    return {group[0].service: group for group in groups}


def endpoints(pods: str) -> tuple[Endpoint, ...]:
    """Of the pods with these letters."""
    return tuple(Endpoint(IPv4Address(PODS[pod]), TARGET) for pod in pods)


def _place(name: str) -> str:
    places: Mapping[str, str] = {"node": NODE, "other": OTHER, "client": CLIENT}
    return places.get(name) or f"tb-c-{name}"


def _add_route(lab: Lab, place: str, network: IPv4Network, via: str) -> None:
    links = lab.links(place)
    links.set_routes("eth0", {**links.routes("eth0"), network: Hop(via=IPv4Address(via))})
