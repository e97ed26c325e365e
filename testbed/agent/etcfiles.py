"""A pod's names and its files in /etc, hosts and resolv.conf, as a kubelet makes them. Pure.

Nodes here reach no resolver of this machine (the switch lets nothing out), so a node's own resolver is whom the
topology forwards to. Where it forwards to nobody the node has none, and pods are told what a kubelet tells them then:
127.0.0.1, where nobody listens and every lookup fails at once. The same goes for pods of a cluster without DNS.
Source: kubernetes pkg/kubelet/network/dns/dns.go, pkg/kubelet/kubelet_pods.go; containerd's order of the lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.api.objects import Object, name, namespace, spec
from testbed.topology.spec import ClusterSpec, NodeSpec

MOST_NAMESERVERS, MOST_SEARCHES, MOST_SEARCH_CHARACTERS = 3, 32, 2048
"""What exceeds these is left out (pkg/apis/core/validation, MaxDNSNameservers and so on)."""
LONGEST_LABEL = 63

_LOCAL = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


@dataclass(frozen=True)
class Resolver:
    """What a resolv.conf says; options are by name, with an empty value where they have none."""

    nameservers: Sequence[str] = ()
    searches: Sequence[str] = ()
    options: Mapping[str, str] | None = None

    def __add__(self, other: Resolver) -> Resolver:
        """Both; `other` has the last word about options."""
        return Resolver(
            _distinct((*self.nameservers, *other.nameservers)),
            _distinct((*self.searches, *other.searches)),
            {**(self.options or {}), **(other.options or {})},
        )

    def __str__(self) -> str:
        """The file, within the limits."""
        options = [f"{option}:{value}" if value else option for option, value in (self.options or {}).items()]
        lines = [f"search {' '.join(self._kept_searches())}"] if self.searches else []
        lines += [f"nameserver {server}" for server in self.nameservers[:MOST_NAMESERVERS]]
        lines += [f"options {' '.join(options)}"] if options else []
        return "".join(f"{line}\n" for line in lines)

    def _kept_searches(self) -> list[str]:
        kept = list(self.searches[:MOST_SEARCHES])
        while len(" ".join(kept)) > MOST_SEARCH_CHARACTERS:
            kept.pop()
        return kept


def resolv_conf(pod: Object, cluster: ClusterSpec) -> str:
    """/etc/resolv.conf, by dnsPolicy and dnsConfig."""
    fields = spec(pod)
    policy = fields.get("dnsPolicy") or "ClusterFirst"
    asks_cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not fields.get("hostNetwork"))
    if policy == "None":
        resolver = Resolver()
    elif asks_cluster and cluster.dns.is_served:
        resolver = _of_cluster(namespace(pod), cluster)
    else:
        resolver = _of_node(cluster)
    return str(resolver + _configured(fields.get("dnsConfig") or {}))


def hosts(pod: Object, address: str, cluster: ClusterSpec, node: NodeSpec) -> str:
    """/etc/hosts: the pod's own name, or on its node's network the node's, and its aliases."""
    if spec(pod).get("hostNetwork"):
        lines = ["# Kubernetes-managed hosts file (host network).\n", _LOCAL, f"{node.address.ip}\t{node.name}\n"]
    else:
        full, short = full_name(pod, cluster.dns.domain), hostname(pod)
        names = f"{full}\t{short}" if full else short
        lines = ["# Kubernetes-managed hosts file.\n", _LOCAL, f"{address}\t{names}\n"]
    if aliases := spec(pod).get("hostAliases"):
        lines.append("\n# Entries added by HostAliases.\n")
    for alias in aliases or []:
        names = "\t".join(alias.get("hostnames") or [])
        lines.append(f"{alias['ip']}\t{names}\n")
    return "".join(lines)


def hostname(pod: Object) -> str:
    """The pod's short name: a label of 63 characters at most (Kubernetes documentation, "Pod hostname")."""
    return str(spec(pod).get("hostname") or name(pod))[:LONGEST_LABEL].rstrip("-.")


def full_name(pod: Object, domain: str) -> str:
    """The name that its headless Service gives the pod; empty for a pod without a subdomain."""
    subdomain = spec(pod).get("subdomain")
    return f"{hostname(pod)}.{subdomain}.{namespace(pod)}.svc.{domain}" if subdomain else ""


def kernel_hostname(pod: Object, domain: str) -> str:
    """What `uname -n` says in the pod: with setHostnameAsFQDN its full name."""
    return (full_name(pod, domain) if spec(pod).get("setHostnameAsFQDN") else "") or hostname(pod)


def _of_cluster(namespace: str, cluster: ClusterSpec) -> Resolver:
    domain = cluster.dns.domain
    searches = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain)
    return Resolver((str(cluster.services.dns),), searches, {"ndots": "5"})


def _of_node(cluster: ClusterSpec) -> Resolver:
    if forwarders := cluster.dns.forward:
        return Resolver(tuple(map(str, forwarders)))
    return Resolver(("127.0.0.1",), (".",))  # as a kubelet whose --resolv-conf is empty


def _configured(config: Mapping[str, Any]) -> Resolver:
    options = {option["name"]: option.get("value") or "" for option in config.get("options") or []}
    return Resolver(tuple(config.get("nameservers") or ()), tuple(config.get("searches") or ()), options)


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
