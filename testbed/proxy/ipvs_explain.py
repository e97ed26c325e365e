"""What mode `ipvs` finds in the kernel: against what it should, and for one port in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from testbed.kernel.ipvs import Ipvs
from testbed.kernel.ipvs_wire import SCHEDULER, Real, RealState, Server, say
from testbed.kernel.links import Links, Nft
from testbed.proxy import ipvs_rules as rules
from testbed.proxy import ipvs_servers as wanted
from testbed.proxy import nftables_listing as listing
from testbed.proxy.ipvs_servers import Facts, Node
from testbed.proxy.virtualport import Here, VirtualPort

LOCAL_FOR_ALL = (
    "externalTrafficPolicy Local: IPVS has one list of real servers to a virtual server, so by the addresses above the "
    "cluster's own pods and nodes, too, reach this node's endpoints only; in the other modes they reach all."
)
AFFINITY_BY_ADDRESS = (
    "Affinity: each virtual server remembers its own clients, so by another address a client may have another endpoint."
)


@dataclass(frozen=True)
class Found:
    """What the kernel of one node holds now."""

    nft: Nft
    ipvs: Ipvs
    links: Links
    table: str
    device: str

    def compare(self, here: Here, facts: Facts) -> list[str]:
        """`- …` what is there and should not be, `+ …` the reverse. What drains (weight 0) is meant to be there."""
        servers = wanted.servers(facts)
        should = {_server(server, serving.persistence_s) for server, serving in servers.items()}
        should |= {_real(server, real) for server, serving in servers.items() for real in serving.reals}
        should |= {self._address(address) for address in wanted.addresses(facts)}
        should |= {self._element(*name, value) for name, value in wanted.elements(facts).items()}
        should |= set(self._rules({**rules.chains(here), **rules.HOOKS}))
        there, draining = self._present()
        extra, missing = sorted(there - should - draining), sorted(should - there)
        return [*(f"- {each}" for each in extra), *(f"+ {each}" for each in missing)]

    def explain(self, port: VirtualPort, node: Node) -> list[str]:
        """A sentence to a line, for each address at which the port is reached."""
        held = {name: self._elements(name) for name in rules.SETS}
        lines = self._way(held, wanted.cluster_server(port), "ClusterIP")
        for server in wanted.public_servers(port):
            is_balanced = server.address in port.load_balancer_ips
            lines += self._way(held, server, "load balancer address" if is_balanced else "external address")
        for server in wanted.node_servers(port, node):
            lines += self._way(held, server, "node port")
        if port.is_external_local and (port.public_ips or port.node_port):
            lines.append(LOCAL_FOR_ALL)
        if port.affinity_s:
            lines.append(AFFINITY_BY_ADDRESS)
        return lines

    def _way(self, held: Mapping[str, Mapping[str, str]], server: Server, kind: str) -> list[str]:
        key = wanted.key(server)
        start = f"{server.protocol} to {kind} {server.address}:{server.port}"
        if refusal := held[rules.REFUSALS].get(key):
            return [f"{start}: map {rules.REFUSALS} of table ip {self.table} says {refusal}, before IPVS sees it."]
        if key not in held[rules.PORTS]:
            return [f"{start}: not served; it is no element of set {rules.PORTS} of table ip {self.table}."]
        reals = self.ipvs.reals(server)
        where = f"bound to {self.device}" if key.split()[0] in held[rules.SERVICE_IPS] else "the node's own"
        lines = [
            f"{start}: {where}, so handed to virtual server `{say(server)} -s {SCHEDULER}"
            f"{_persistence(self.ipvs.servers().get(server, 0))}` with {len(reals)} real servers.",
            *(f"  {_state(real, state)}" for real, state in sorted(reals.items())),
        ]
        lines += [
            f"  Client {who} keeps {at.address}:{at.port}." for who, at in sorted(self.ipvs.clients(server).items())
        ]
        if key in held[rules.GUARDED]:
            allowed = sorted(each.partition(" . ")[0] for each in held[rules.ALLOWED] if each.endswith(f" . {key}"))
            lines.append(f"  Set {rules.ALLOWED} lets in {', '.join(allowed)} only.")
        if chain := held[rules.SOURCES].get(key):
            lines.append(f"  Chain {chain.removeprefix('goto ')}: {_MASQUERADED[chain]}.")
        return lines

    def _present(self) -> tuple[set[str], set[str]]:
        """What is there, and what of it drains: virtual servers, and their addresses, with real servers of weight 0."""
        there = set(self._rules(listing.chains(self.nft.list(f"table ip {self.table}"))))
        draining: set[str] = set()
        for server, persistence_s in self.ipvs.servers().items():
            own = _server(server, persistence_s)
            there.add(own)
            for real, state in self.ipvs.reals(server).items():
                if state.weight:
                    there.add(_real(server, real))
                else:
                    draining |= {own, self._address(server.address)}
        if any(link.name == self.device for link in self.links.links()):
            there |= {self._address(address.ip) for address in self.links.addresses(self.device)}
        for name in rules.SETS:
            there |= {self._element(name, key, value) for key, value in self._elements(name).items()}
        return there, draining

    def _elements(self, name: str) -> dict[str, str]:
        return listing.elements(self.nft.list(f"{rules.SETS[name].partition(' ')[0]} ip {self.table} {name}"))

    def _rules(self, chains: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
        for name, lines in chains.items():
            yield from (f"rule ip {self.table} {name} {line}" for line in lines)

    def _address(self, address: IPv4Address) -> str:
        return f"address {address}/32 dev {self.device}"

    def _element(self, where: str, key: str, value: str) -> str:
        return f"element ip {self.table} {where} {{ {key}{f' : {value}' if value else ''} }}"


_MASQUERADED = {
    "goto masq": "every connection is masqueraded",
    "goto masq-own": "only connections of the node itself are masqueraded",
    "goto masq-foreign": "connections of pods are not masqueraded, all others are",
}


def _persistence(persistence_s: int) -> str:
    return f" -p {persistence_s}" if persistence_s else ""


def _state(real: Real, state: RealState) -> str:
    what = f"weight {state.weight}" if state.weight else "draining"
    return (
        f"{real.address}:{real.port}, {what}: {state.active} active and {state.inactive} other connections now, "
        f"{state.connections} so far, {state.persistent} clients bound to it"
    )


def _server(server: Server, persistence_s: int) -> str:
    return f"virtual server {say(server)}{_persistence(persistence_s)}"


def _real(server: Server, real: Real) -> str:
    return f"real server {real.address}:{real.port} of {say(server)}"
