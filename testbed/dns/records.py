"""Services, EndpointSlices and Pods as DNS records. Pure.

    web.default.svc.cluster.local.             A      10.96.4.5                     ClusterIP (2.3.1)
    _http._tcp.web.default.svc.cluster.local.  SRV    0 100 80 web.default.svc…     a named port (2.3.2)
    5.4.96.10.in-addr.arpa.                    PTR    web.default.svc…              (2.3.3)
    peers.default.svc.cluster.local.           A      10.244.1.2                    headless: each ready endpoint (2.4)
    one.peers.default.svc.cluster.local.       A      10.244.1.2                    by its hostname, or 10-244-1-2
    db.default.svc.cluster.local.              CNAME  db.example.com.               ExternalName (2.5)
    10-244-1-2.default.pod.cluster.local.      A      10.244.1.2                    a pod; not in the specification

What has no record does not exist: a headless Service without a ready endpoint is NXDOMAIN because nothing is made of
it, and a name with names below it (`_tcp.web…`) is NOERROR without an answer because the server knows these.
Source: kubernetes/dns, docs/specification.md, version 1.1.0; its sections are named here. Pod records: CoreDNS, plugin
kubernetes, `pods verified`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from testbed.api.objects import Object, name, namespace, spec, status

VERSION = "1.1.0"
"""Of the specification, as `dns-version.ZONE` tells it (2.2)."""
TTL_S = 5
"""As kube-dns and CoreDNS."""
PRIORITY_AND_WEIGHT = "0 100"
IPV4_REVERSE, IPV6_REVERSE = "in-addr.arpa.", "ip6.arpa."


class Record(NamedTuple):
    """One resource record: owner with its final dot, in lower case, and its data as a zone file has it."""

    owner: str
    type: str
    data: str


def service_records(service: Object, slices: Iterable[Object], domain: str) -> frozenset[Record]:
    """The records of one Service and its EndpointSlices; none while it has neither an address nor a ready endpoint."""
    own = f"{name(service)}.{namespace(service)}.svc.{domain}."
    fields = spec(service)
    if fields.get("type") == "ExternalName":
        return frozenset((Record(own, "CNAME", f"{fields['externalName'].rstrip('.').lower()}."),))
    if fields.get("clusterIP") == "None":
        return frozenset(_headless(own, slices, tolerates_unready=bool(fields.get("publishNotReadyAddresses"))))
    return frozenset(_clustered(own, fields))


def pod_records(pod: Object, domain: str) -> frozenset[Record]:
    """A pod's name made of its address, for as long as it may run."""
    address = status(pod).get("podIP")
    if not address or status(pod).get("phase") in ("Succeeded", "Failed"):
        return frozenset()
    return frozenset((_address(f"{_dashed(address)}.{namespace(pod)}.pod.{domain}.", ip_address(address)),))


def zone_records(domain: str, server: str) -> frozenset[Record]:
    """What the zones have without any Service; `server` is the address of the DNS itself, `ns.dns.ZONE`."""
    made = {Record(f"dns-version.{domain}.", "TXT", f'"{VERSION}"'), Record(f"ns.dns.{domain}.", "A", server)}
    for zone in zones(domain):
        made.add(Record(zone, "NS", f"ns.dns.{domain}."))
    return frozenset(made)


def zones(domain: str) -> tuple[str, ...]:
    """The zones that are served: the cluster's own, and those of addresses, whole: endpoints may lie anywhere."""
    return f"{domain}.", IPV4_REVERSE, IPV6_REVERSE


def zone_of(record: Record, served: Iterable[str]) -> str:
    """Which of the zones a record is in."""
    return next(zone for zone in served if record.owner == zone or record.owner.endswith(f".{zone}"))


def _clustered(own: str, fields: Mapping[str, Any]) -> Iterator[Record]:
    addresses = fields.get("clusterIPs") or [fields.get("clusterIP")]
    for address in map(ip_address, filter(None, addresses)):
        yield _address(own, address)
        yield Record(f"{address.reverse_pointer}.", "PTR", own)
    if any(addresses):
        for port in fields.get("ports") or []:
            yield from _srv(own, port, own)


def _headless(own: str, slices: Iterable[Object], *, tolerates_unready: bool) -> Iterator[Record]:
    for slice_ in slices:
        for endpoint in slice_.get("endpoints") or []:
            if slice_.get("addressType") != "FQDN" and (tolerates_unready or _is_ready(endpoint)):
                yield from _endpoint(own, endpoint, slice_.get("ports") or [])


def _endpoint(own: str, endpoint: Mapping[str, Any], ports: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    for address in map(ip_address, endpoint["addresses"]):
        host = f"{endpoint.get('hostname') or _dashed(str(address))}.{own}"
        yield _address(own, address)
        yield _address(host, address)
        yield Record(f"{address.reverse_pointer}.", "PTR", host)
        for port in ports:
            yield from _srv(own, port, host)


def _is_ready(endpoint: Mapping[str, Any]) -> bool:
    """An unknown condition counts as ready (API reference, discovery/v1 EndpointConditions)."""
    return bool((endpoint.get("conditions") or {}).get("ready", True))


def _srv(own: str, port: Mapping[str, Any], target: str) -> Iterator[Record]:
    """Named ports only (2.3.2, 2.4.2)."""
    if port.get("name") and port.get("port"):
        owner = f"_{port['name']}._{(port.get('protocol') or 'TCP').lower()}.{own}"
        yield Record(owner, "SRV", f"{PRIORITY_AND_WEIGHT} {port['port']} {target}")


def _address(owner: str, address: IPv4Address | IPv6Address) -> Record:
    return Record(owner, "A" if address.version == 4 else "AAAA", str(address))


def _dashed(address: str) -> str:
    """The system's identifier of an endpoint or a pod, `10-244-1-2`."""
    return address.replace(".", "-").replace(":", "-")
