"""What knotd, and where names are forwarded Unbound, are told at their start. Pure.

    no forwarders     client ─▶ knotd :53                        other names: REFUSED
    forwarders        client ─▶ Unbound :53 ─▶ knotd 127.0.0.1:5353     the cluster's names, never remembered
                                        └────▶ the forwarders           others, and where a CNAME leaves the cluster

knotd could forward by itself (mod-dnsproxy), but each of its threads waits for the answer: a dead forwarder would take
the cluster's own names along. And it hands out the CNAME of an ExternalName without what it leads to, which the
resolver of a C library does not follow. Unbound does both, at a third of the rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from testbed.dns.records import zones

RUN = "/run/knot"
"""The directory that the containers share: knotd's control socket."""
SOCKET = f"{RUN}/knot.sock"
DNS_PORT, BEHIND_PORT = 53, 5353
READY_PORT, READY_PATH = 8181, "/ready"
"""Where the controller says whether knotd has everything: as CoreDNS does."""


def knot_conf(domain: str, *, is_behind: bool) -> str:
    """knotd with empty zones, to be filled by transactions; nothing is kept on disk.

    Of the zones it would say that they are empty at first, and what is wrong with a transaction, as its answer does.
    """
    listen = f"127.0.0.1@{BEHIND_PORT}" if is_behind else f"0.0.0.0@{DNS_PORT}"
    served = "".join(f"  - domain: {zone}\n" for zone in zones(domain))
    return f"""\
server:
    rundir: {RUN}
    pidfile: /tmp/knotd.pid
    listen: {listen}
    udp-workers: 2
    tcp-workers: 2
    background-workers: 1
database:
    storage: /tmp
log:
  - target: stderr
    server: warning
    control: warning
    zone: critical
template:
  - id: default
    storage: /tmp
    zonefile-sync: -1
    zonefile-load: none
    journal-content: none
zone:
{served}"""


def unbound_conf(domain: str, networks: Sequence[IPv4Network], forwarders: Sequence[IPv4Address]) -> str:
    """Unbound before that knotd; `networks` are the cluster's, whose reverse names are knotd's too.

    It validates nothing (the cluster's zone is not signed) and answers for no special-use domain by itself.
    """
    names = [f"{domain}.", *(name for network in networks for name in reverse_zones(network))]
    stubs = "".join(
        f"stub-zone:\n    name: {name}\n    stub-addr: 127.0.0.1@{BEHIND_PORT}\n    stub-no-cache: yes\n"
        for name in names
    )
    transparent = "".join(f"    local-zone: {name} transparent\n" for name in names)
    asked = "".join(f"    forward-addr: {address}\n" for address in forwarders)
    return f"""\
server:
    interface: 0.0.0.0@{DNS_PORT}
    access-control: 0.0.0.0/0 allow
    username: ""
    chroot: ""
    directory: /tmp
    pidfile: ""
    use-syslog: no
    num-threads: 2
    so-reuseport: yes
    do-ip6: no
    do-not-query-localhost: no
    module-config: iterator
    qname-minimisation: no
    infra-keep-probing: yes
    infra-host-ttl: 1
    unblock-lan-zones: yes
    local-zone: test. nodefault
{transparent}remote-control:
    control-enable: no
{stubs}forward-zone:
    name: .
{asked}"""


def reverse_zones(network: IPv4Network) -> Iterator[str]:
    """The reverse zones at whole octets that cover a network: `244.10.in-addr.arpa.`"""
    octets = min(3, -(-network.prefixlen // 8))
    whole = network.supernet(new_prefix=8 * octets) if network.prefixlen > 24 else network
    for part in whole.subnets(new_prefix=8 * octets):
        named = str(part.network_address).split(".")[:octets]
        yield f"{'.'.join(reversed(named))}.in-addr.arpa."
