"""D. DNS: DNS-01 … DNS-16, asked from inside pods."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from testbed.api.kinds import SERVICE
from testbed.api.objects import Object
from testbed.errors import NotFound
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.bed import READY_S, Bed, NotApplicable, Running
from tests.conformance.manifests import HTTP, Port
from tests.e2e.asking import Answer, evaluate, value

INDNS = Path(__file__).with_name("indns.py")
PEERS = {"app": "peers"}
WEB = {"app": "web"}
HEADLESS: Object = {"clusterIP": "None"}
LONG = 40
"""So many addresses exceed 512 bytes."""


@dataclass(frozen=True)
class Asker:
    """A pod that asks, and the domain of its cluster."""

    bed: Bed
    pod: Running
    domain: str

    def name(self, service: str) -> str:
        """The full name of a Service of the row's namespace, or of what is below it."""
        return f"{service}.{self.bed.namespace}.svc.{self.domain}."

    async def query(self, name: str, kind: str = "A", **details: Any) -> Answer:
        """One question to the cluster's DNS."""
        answer: Answer = await call(self.bed, self.pod, f"query({name!r}, {kind!r}, **{details!r})")
        return answer

    async def expect(self, name: str, kind: str, wanted: set[str], code: str = "NOERROR") -> None:
        """Wait until the DNS answers with just this data, or with none and this code."""
        answer = await call(self.bed, self.pod, f"until({name!r}, {kind!r}, {sorted(wanted)!r}, code={code!r})")
        told = answer["code"], set(answer["data"])
        assert told == (code, wanted), f"{name} {kind}: {told} instead of {(code, wanted)}"


async def the_zone_tells_its_version(bed: Bed) -> None:
    """DNS-01"""
    asker = await asking(bed)
    await asker.expect(f"dns-version.{asker.domain}.", "TXT", {"1.1.0"})


async def a_service_has_its_address(bed: Bed) -> None:
    """DNS-02"""
    asker = await asking(bed)
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    await asker.expect(asker.name("web"), "A", {address})
    await asker.expect(asker.name("web"), "AAAA", set())
    await asker.expect(asker.name("nobody"), "A", set(), "NXDOMAIN")
    await bed.client.delete(SERVICE, "web", bed.namespace)
    await asker.expect(asker.name("web"), "A", set(), "NXDOMAIN")


async def named_ports_have_srv_records(bed: Bed) -> None:
    """DNS-03"""
    asker = await asking(bed)
    await bed.serve(manifests.service("web", WEB, Port(80, HTTP, name="http"), Port(53, HTTP, "UDP", name="dns")))
    unnamed = manifests.service("unnamed", WEB, Port(80, HTTP))
    del unnamed["spec"]["ports"][0]["name"]
    await bed.serve(unnamed)
    web = asker.name("web")
    await asker.expect(f"_http._tcp.{web}", "SRV", {f"80 {web}"})
    await asker.expect(f"_dns._udp.{web}", "SRV", {f"53 {web}"})
    answer = await asker.query(f"_http._tcp.{asker.name('unnamed')}", "SRV")
    assert not answer["data"], f"an unnamed port has {answer['data']}"


async def a_cluster_ip_has_a_name(bed: Bed) -> None:
    """DNS-04"""
    asker = await asking(bed)
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    await asker.expect(reverse(address), "PTR", {asker.name("web")})


async def a_headless_service_has_its_ready_endpoints(bed: Bed) -> None:
    """DNS-05"""
    asker = await asking(bed)
    await bed.create(manifests.service("peers", PEERS, Port(80, HTTP), **HEADLESS))
    pods = await bed.run(*(manifests.server(f"peer-{i}", labels=PEERS) for i in range(3)))
    await asker.expect(asker.name("peers"), "A", {pod.ip for pod in pods})
    await bed.delete_pod(pods[0].name)
    await asker.expect(asker.name("peers"), "A", {pod.ip for pod in pods[1:]})


async def a_headless_service_with_none_ready_does_not_exist(bed: Bed) -> None:
    """DNS-06"""
    asker = await asking(bed)
    await bed.create(manifests.service("peers", PEERS, Port(80, HTTP), **HEADLESS))
    await asker.expect(asker.name("peers"), "A", set(), "NXDOMAIN")
    await _unready_endpoint(bed)
    await asker.expect(asker.name("peers"), "A", set(), "NXDOMAIN")
    (ready,) = await bed.run(manifests.server("ready", labels=PEERS))
    await asker.expect(asker.name("peers"), "A", {ready.ip})


async def a_pod_with_a_hostname_has_a_name(bed: Bed) -> None:
    """DNS-07"""
    asker = await asking(bed)
    await bed.create(manifests.service("peers", PEERS, Port(80, HTTP), **HEADLESS))
    (one,) = await bed.run(_member("pod-1", "one"))
    await asker.expect(asker.name("one.peers"), "A", {one.ip})
    names = await call(bed, one, "own_names()")
    assert names == {"short": "one", "full": asker.name("one.peers").rstrip(".")}, names


async def a_headless_srv_leads_to_each_endpoint_and_port(bed: Bed) -> None:
    """DNS-08"""
    asker = await asking(bed)
    ports = Port(80, HTTP, name="http"), Port(81, HTTP, name="more")
    await bed.create(manifests.service("peers", PEERS, *ports, **HEADLESS))
    pods = await bed.run(*(_member(f"pod-{host}", host) for host in ("one", "two", "three")))
    addresses = {f"{pod.name.removeprefix('pod-')}.peers": pod.ip for pod in pods}
    for name in ("http", "more"):
        wanted = {f"{HTTP} {asker.name(host)}" for host in addresses}
        await asker.expect(f"_{name}._tcp.{asker.name('peers')}", "SRV", wanted)
    for host, ip in addresses.items():
        await asker.expect(asker.name(host), "A", {ip})


async def an_endpoint_has_a_name(bed: Bed) -> None:
    """DNS-09"""
    asker = await asking(bed)
    await bed.create(manifests.service("peers", PEERS, Port(80, HTTP), **HEADLESS))
    (one,) = await bed.run(_member("pod-1", "one"))
    await asker.expect(reverse(one.ip), "PTR", {asker.name("one.peers")})


async def an_external_name_is_an_alias(bed: Bed) -> None:
    """DNS-10"""
    asker = await asking(bed)
    first, second = asker.name("first"), asker.name("second")
    await bed.create(_external("alias", first))
    await asker.expect(asker.name("alias"), "CNAME", {first})
    await bed.client.patch(SERVICE, "alias", {"spec": {"externalName": second.rstrip(".")}}, bed.namespace)
    await asker.expect(asker.name("alias"), "CNAME", {second})
    ports = [{"port": 80, "targetPort": HTTP}]
    changed = {"spec": {"type": "ClusterIP", "externalName": None, "ports": ports}}
    service = await bed.client.patch(SERVICE, "alias", changed, bed.namespace)
    await asker.expect(asker.name("alias"), "A", {service["spec"]["clusterIP"]})


async def partial_names_are_found(bed: Bed) -> None:
    """DNS-11"""
    asker = await asking(bed)
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    await asker.expect(asker.name("web"), "A", {address})
    names = "web", f"web.{bed.namespace}", f"web.{bed.namespace}.svc", asker.name("web").rstrip(".")
    found = await call(bed, asker.pod, f"looked_up(*{names!r})")
    assert found == [[address]] * len(names), dict(zip(names, found, strict=True))
    (missing,) = await call(bed, asker.pod, "looked_up('nobody')")
    assert isinstance(missing, str), f"a name that nobody has leads to {missing}"


async def a_pod_may_bring_its_own_resolver(bed: Bed) -> None:
    """DNS-12"""
    pod = manifests.idle("own", "")
    pod["spec"] |= {
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": ["192.0.2.53", "192.0.2.54"],
            "searches": ["lab.example", "example"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        },
    }
    (own,) = await bed.run(pod)
    lines = await call(bed, own, "file('/etc/resolv.conf')")
    wanted = ["nameserver 192.0.2.53", "nameserver 192.0.2.54", "search lab.example example"]
    assert [line for line in sorted(lines) if not line.startswith("options")] == wanted, lines
    options = {word for line in lines if line.startswith("options") for word in line.split()[1:]}
    assert options == {"ndots:2", "edns0"}, lines


async def a_pods_hosts_file_has_its_own_name(bed: Bed) -> None:
    """DNS-13"""
    node, *_ = await bed.nodes()
    aliased = manifests.idle("aliased", node)
    aliased["spec"]["hostAliases"] = [{"ip": "192.0.2.1", "hostnames": ["foo", "bar"]}]
    pod, host = await bed.run(aliased, manifests.idle("host", node, host_network=True))
    lines = [line.split() for line in await call(bed, pod, "file('/etc/hosts')")]
    assert [pod.ip, "aliased"] in lines, lines
    assert ["192.0.2.1", "foo", "bar"] in lines, lines
    assert any(line[0] == "127.0.0.1" and "localhost" in line for line in lines), lines
    of_node = [line.split() for line in await call(bed, host, "file('/etc/hosts')")]
    assert not any("host" in line[1:] for line in of_node), f"the node's own file names a pod: {of_node}"


async def case_makes_no_difference(bed: Bed) -> None:
    """DNS-14"""
    asker = await asking(bed)
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    await asker.expect(asker.name("web"), "A", {address})
    mixed = "".join(letter.upper() if index % 2 else letter for index, letter in enumerate(asker.name("web")))
    answer = await asker.query(mixed)
    assert answer["data"] == [address], f"{mixed}: {answer}"
    assert answer["question"] == mixed, f"the question came back as {answer['question']}"


async def unready_addresses_may_be_published(bed: Bed) -> None:
    """DNS-15"""
    asker = await asking(bed)
    published = {**HEADLESS, "publishNotReadyAddresses": True}
    await bed.create(manifests.service("peers", PEERS, Port(80, HTTP), **published))
    address = await _unready_endpoint(bed)
    await asker.expect(asker.name("peers"), "A", {address})


async def long_answers_come_over_tcp(bed: Bed) -> None:
    """DNS-16"""
    asker = await asking(bed)
    await bed.create(manifests.service("many", {}, Port(80, HTTP), **HEADLESS))
    addresses = {f"192.0.2.{i}" for i in range(1, LONG + 1)}
    listed = [{"addresses": [address]} for address in addresses]
    await bed.create(manifests.endpoint_slice("many-1", "many", listed, Port(80, HTTP)))
    name = asker.name("many")

    async def check() -> bool:
        return set((await asker.query(name, tcp=True))["data"]) == addresses

    await wait_until_async(check, READY_S, f"{LONG} addresses of {name} over TCP", every_s=0.05)
    short, wide = await asker.query(name), await asker.query(name, payload=4096)
    assert short["truncated"], f"{LONG} addresses are not truncated: {short['size']} bytes"
    assert short["size"] <= 512, f"{short['size']} bytes to a client that takes 512"
    assert len(wide["data"]) > len(short["data"]) or not wide["truncated"], "EDNS makes no difference"
    (found,) = await call(bed, asker.pod, f"looked_up({name!r})")
    assert set(found) == addresses, f"the resolver found {len(found)} of {LONG}"


async def asking(bed: Bed) -> Asker:
    """A pod that asks the cluster's DNS; NotApplicable in a cluster that has none."""
    try:
        await bed.client.get(SERVICE, "kube-dns", "kube-system")
    except NotFound:
        raise NotApplicable("the cluster has no DNS (Service kube-system/kube-dns)") from None
    (pod,) = await bed.run(manifests.idle("asker", ""))
    return Asker(bed, pod, await call(bed, pod, "domain()"))


async def call(bed: Bed, pod: Running, expression: str) -> Any:
    """The value of an expression of tests/conformance/indns.py in a pod."""
    async with evaluate(bed.client, bed.namespace, pod.name, INDNS, expression, "") as program:
        return await value(program)


def reverse(address: str) -> str:
    """The name under which an address has its PTR."""
    return f"{ip_address(address).reverse_pointer}."


async def _unready_endpoint(bed: Bed) -> str:
    """A pod of PEERS that never gets ready, once its address stands in a slice."""
    await bed.create(manifests.server("unready", labels=PEERS, gets_ready=False))

    async def check() -> str:
        endpoints = [endpoint for slice_ in await bed.slices("peers") for endpoint in slice_.get("endpoints") or []]
        return str(endpoints[0]["addresses"][0]) if endpoints else ""

    return await wait_until_async(check, READY_S, "the address of a pod that is not ready", every_s=0.05)


def _member(name: str, hostname: str) -> Object:
    """A server of PEERS with a hostname in the subdomain of their Service."""
    pod = manifests.server(name, labels=PEERS)
    pod["spec"] |= {"hostname": hostname, "subdomain": "peers"}
    return pod


def _external(name: str, target: str) -> Object:
    spec = {"type": "ExternalName", "externalName": target.rstrip(".")}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
