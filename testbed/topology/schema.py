"""What a topology file may say. Everything here parses; `topology.plan` says what this version cannot build yet.

The field names are Kubernetes' (podCIDR), the defaults those of kubeadm and flannel where they have one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, WithJsonSchema

from testbed.topology.source import Loc

HERE = "here"
"""The name of this machine where the topology names no hosts."""

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""RFC 1123 label, as Kubernetes wants names."""
_LABEL_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_RATE = re.compile(r"(\d+(?:\.\d+)?)(k|m|g)?bit")
_DELAY = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s)")
_LOSS = re.compile(r"(\d+(?:\.\d+)?)%")


class Strict(BaseModel):
    """A mapping in which every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _text(pattern: str, example: str, read: Callable[[str], Any]) -> tuple[BeforeValidator, WithJsonSchema]:
    """A value written as text: how it is read, and how the JSON Schema describes it."""

    def validate(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"is {value!r}, and must be text such as {example}")  # noqa: TRY004 - pydantic's word
        return read(value)

    return BeforeValidator(validate), WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


def _name(longest: int) -> Callable[[str], str]:
    def read(value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"is {value!r}; a name has lower-case letters, digits and '-', and no '-' at its ends")
        if len(value) > longest:
            raise ValueError(f"is {len(value)} characters long, and may have {longest}")
        return value

    return read


def _cidr(value: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(f"is {value!r}, and no network: {error}; write it as in 10.244.0.0/16") from None


def _rate(value: str) -> int:
    if not (match := _RATE.fullmatch(value)):
        raise ValueError(f"is {value!r}; a rate is written as 10gbit, 100mbit or 500kbit")
    return round(float(match[1]) * {None: 1, "k": 10**3, "m": 10**6, "g": 10**9}[match[2]])


def _delay(value: str) -> int:
    if not (match := _DELAY.fullmatch(value)):
        raise ValueError(f"is {value!r}; a delay is written as 200us, 5ms or 1s")
    return round(float(match[1]) * {"us": 1, "ms": 10**3, "s": 10**6}[match[2]])


def _loss(value: str) -> float:
    if not (match := _LOSS.fullmatch(value)) or float(match[1]) > 100:
        raise ValueError(f"is {value!r}; a loss is written in percent, as 0.01%")
    return float(match[1]) / 100


def _port_range(value: str) -> tuple[int, int]:
    first, dash, last = value.partition("-")
    if not (dash and first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last) <= 65535):
        raise ValueError(f"is {value!r}; a range of ports is written as 30000-32767")
    return int(first), int(last)


def _address(value: str) -> IPv4Address:
    try:
        return IPv4Address(value)
    except ValueError:
        raise ValueError(f"is {value!r}, and no IPv4 address; write it as 192.0.2.53") from None


def _auto_mtu(value: Any) -> Any:
    if value != "auto" and (type(value) is not int or not 576 <= value <= 65535):
        raise ValueError(f"is {value!r}, and must be auto or a number from 576 to 65535")
    return value


def _label_key(value: str) -> str:
    prefix, _, part = value.rpartition("/")
    if not _LABEL_PART.fullmatch(part) or len(part) > 63 or len(prefix) > 253:
        raise ValueError(f"{value!r} is no label key; write it as topology.kubernetes.io/zone")
    return value


def _label_value(value: str) -> str:
    if value and (not _LABEL_PART.fullmatch(value) or len(value) > 63):
        raise ValueError(f"is {value!r}; a label's value has at most 63 letters, digits, '-', '_' and '.'")
    return value


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_NAME_PATTERN = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
ClusterName = Annotated[str, *_text(_NAME_PATTERN, "two-nodes", _name(32))]
Name = Annotated[str, *_text(_NAME_PATTERN, "a", _name(58))]
"""58 characters leave room for the number that `count` adds: a host name has at most 63."""
Cidr = Annotated[IPv4Network | IPv6Network, *_text(r"^[0-9a-fA-F.:]+/[0-9]+$", "10.244.0.0/16", _cidr)]
Cidrs = Annotated[
    tuple[Cidr, ...],
    Field(min_length=1, max_length=2),
    BeforeValidator(_listed),
    WithJsonSchema(
        {
            "description": "one network, or one per address family",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2}],
        }
    ),
]
Address = Annotated[IPv4Address, *_text(r"^[0-9.]+$", "192.0.2.53", _address)]
Rate = Annotated[int, *_text(r"^[0-9.]+[kmg]?bit$", "10gbit", _rate)]
Delay = Annotated[int, *_text(r"^[0-9.]+(us|ms|s)$", "200us", _delay)]
Loss = Annotated[float, *_text(r"^[0-9.]+%$", "0.01%", _loss)]
LabelKey = Annotated[str, BeforeValidator(_label_key)]
LabelValue = Annotated[str, *_text(r"^[-A-Za-z0-9_.]{0,63}$", "z1", _label_value)]
Mtu = Annotated[StrictInt, Field(ge=576, le=65535)]
"""576 is what every IPv4 host must take (RFC 1122); 65535 is the longest IPv4 packet."""
AutoMtu = Annotated[
    Literal["auto"] | int,
    BeforeValidator(_auto_mtu),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 576, "maximum": 65535}]}),
]


ProxyMode = Literal["nftables", "nftables-kubeproxy", "iptables", "ipvs"]
PortRange = Annotated[tuple[int, int], *_text(r"^[0-9]+-[0-9]+$", "30000-32767", _port_range)]


class Metadata(Strict):
    """What the cluster is called."""

    name: ClusterName


class Host(Strict):
    """A machine that carries nodes; `docker` is the URL of its engine, `address` where other hosts reach it."""

    name: Name
    docker: str = ""
    address: str = ""


class Link(Strict):
    """What the node's link to the switch is like."""

    rate: Rate | None = None
    delay: Delay | None = None
    loss: Loss | None = None


class Node(Strict):
    """A node, or `count` of them: NAME-0, NAME-1, …"""

    name: Name
    count: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None
    role: Literal["worker", "external"] = "worker"
    host: Name | None = None
    labels: dict[LabelKey, LabelValue] = {}
    link: Link | None = None
    proxy: ProxyMode | None = None


@dataclass(frozen=True)
class Entry:
    """One node after `count` has been expanded, and where in the file it was written."""

    name: str
    node: Node
    loc: Loc

    @property
    def is_worker(self) -> bool:
        """A node of the cluster, not a machine outside it."""
        return self.node.role == "worker"


class Underlay(Strict):
    """The network that the nodes share; `wire` forbids segmentation offload across it, `uplink` opens the way out."""

    cidr: Cidrs = (IPv4Network("198.18.0.0/16"),)
    mtu: Mtu = 1500
    segmentation: Literal["offload", "wire"] = "offload"
    uplink: StrictBool = False


class Network(Strict):
    """How pod packets travel between nodes; `auto` leaves room for the backend's headers."""

    backend: Literal["vxlan", "host-gw", "ipip", "udp", "wireguard", "geneve", "gre"] = "vxlan"
    pod_cidr: Cidrs = Field(default=(IPv4Network("10.244.0.0/16"),), alias="podCIDR")
    mtu: AutoMtu = "auto"


class Services(Strict):
    """How Services are served, and from which addresses; a node may have a `proxy` mode of its own.

    `nodePortAddresses` are networks: node ports are served at the nodes' addresses in them. Without, it is as in
    kube-proxy: at a node's primary address in the modes of nftables, at all but loopback in iptables and ipvs.
    """

    proxy: ProxyMode = "nftables"
    cidr: Cidrs = (IPv4Network("10.96.0.0/16"),)
    load_balancer_cidr: Cidrs | None = Field(default=None, alias="loadBalancerCIDR")
    node_port_range: PortRange = Field(default="30000-32767", validate_default=True, alias="nodePortRange")
    node_port_addresses: tuple[Cidr, ...] = Field(default=(), alias="nodePortAddresses")


class Dns(Strict):
    """The cluster's domain, who answers for it (`auto`: knot where it can be run), and who for all other names."""

    domain: str = Field(default="cluster.local", pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=180)
    server: Literal["auto", "knot", "none"] = "auto"
    forward: tuple[Address, ...] = ()


class TopologySpec(Strict):
    """Everything Kubernetes has no word for."""

    runtime: Literal["auto", "docker", "netns"] = "auto"
    hosts: tuple[Host, ...] = ()
    nodes: tuple[Node, ...] = Field(min_length=1)
    underlay: Underlay = Underlay()
    network: Network = Network()
    services: Services = Services()
    dns: Dns = Dns()
    images: dict[str, str] = {}
    manifests: tuple[str, ...] = ()

    def expanded(self) -> list[Entry]:
        """The nodes one by one, in the order of the file."""
        entries = []
        for index, node in enumerate(self.nodes):
            numbers = range(node.count or 0)
            names = [node.name] if node.count is None else [f"{node.name}-{number}" for number in numbers]
            entries += [Entry(name, node, ("spec", "nodes", index)) for name in names]
        return entries

    def host_names(self) -> list[str]:
        """The hosts, or this machine where none is given."""
        return [host.name for host in self.hosts] or [HERE]


class Topology(Strict):
    """A cluster: its nodes and networks, and the manifests to run on it."""

    api_version: Literal["testbed/v1"] = Field(alias="apiVersion")
    kind: Literal["Topology"]
    metadata: Metadata
    spec: TopologySpec


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a file kind, for editors and other programs."""
    schema = model.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
