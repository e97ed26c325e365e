"""What a node tells the others about its place in the network, read from its Node object. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from testbed.api.objects import Object, annotations, labels, name, spec
from testbed.api.wellknown import BACKEND_ANNOTATION, ROLE_LABEL, UNDERLAY_ANNOTATION, VTEP_MAC_ANNOTATION, ZONE_LABEL


@dataclass(frozen=True)
class NodeNet:
    """A node of the pod network: where it is on the underlay, and which pods are behind it."""

    name: str
    underlay: IPv4Address
    pod_cidr: IPv4Network
    vtep_mac: str
    backend: str
    zone: str = ""

    @property
    def vtep(self) -> IPv4Address:
        """The address of the node's tunnel device: the base of its pod CIDR, which no pod has."""
        return self.pod_cidr.network_address

    @property
    def gateway(self) -> IPv4Address:
        """The address of the node's bridge, through which its pods reach everything."""
        return self.pod_cidr.network_address + 1


def parse_node(node: Object) -> NodeNet | None:
    """The node's place; None for one outside the pod network, or one that has not yet said where it is."""
    told, cidr = annotations(node), spec(node).get("podCIDR")
    if labels(node).get(ROLE_LABEL) == "external" or not cidr or UNDERLAY_ANNOTATION not in told:
        return None
    return NodeNet(
        name=name(node),
        underlay=IPv4Interface(told[UNDERLAY_ANNOTATION]).ip,
        pod_cidr=IPv4Network(cidr),
        vtep_mac=told.get(VTEP_MAC_ANNOTATION, ""),
        backend=told.get(BACKEND_ANNOTATION, ""),
        zone=labels(node).get(ZONE_LABEL, ""),
    )


def peers_of(name: str, nodes: Iterable[NodeNet]) -> list[NodeNet]:
    """Every other node, in a fixed order."""
    return sorted((node for node in nodes if node.name != name), key=lambda node: node.name)
