"""The cluster's DNS at `up`: whether this machine can run it, and its objects beside those of the manifests."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace

from testbed.agent.netns_sandbox import SYSTEM_PATH
from testbed.api.kinds import kind_of
from testbed.api.objects import Key, namespace
from testbed.api.objects import name as name_of
from testbed.dns.objects import dns_objects
from testbed.errors import MachineLacks
from testbed.topology.manifests import Manifest
from testbed.topology.source import Source
from testbed.topology.spec import ClusterSpec

KNOT, NONE = "knot", "none"
PACKAGES = {"knotd": "knot", "unbound": "unbound"}
"""Debian's package of each program."""
SOURCE = Source("the cluster's DNS")


def decided(spec: ClusterSpec) -> tuple[ClusterSpec, str]:
    """The spec with `auto` turned into knot or none, and a sentence about that where there is something to say.

    MachineLacks where the topology insists on knot and this machine cannot run it. Images have all programs; on
    namespaces they are this machine's own.
    """
    if spec.dns.server == NONE:
        return spec, ""
    if all(node.is_external for node in spec.nodes):
        return _with(spec, NONE), ""
    lacking = _lacking(spec)
    if not lacking:
        return _with(spec, KNOT), ""
    programs, packages = " and ".join(lacking), " ".join(PACKAGES[program] for program in lacking)
    if spec.dns.server == KNOT:
        raise MachineLacks(
            f"the topology asks for the DNS server knot, and this machine has no {programs};"
            f" install {packages}, or set spec.dns.server to auto or none"
        )
    return _with(spec, NONE), f"no DNS in {spec.name}: this machine has no {programs}; to have it, install {packages}"


def dns_manifests(spec: ClusterSpec, manifests: Sequence[Manifest]) -> list[Manifest]:
    """The objects of the cluster's DNS, but for those that the manifests bring themselves."""
    brought = {_identity(manifest) for manifest in manifests}
    own = (Manifest(obj, kind_of(obj), SOURCE) for obj in dns_objects(spec))
    return [manifest for manifest in own if _identity(manifest) not in brought]


def _lacking(spec: ClusterSpec) -> Collection[str]:
    if spec.runtime != "netns":
        return ()
    needed = ["knotd", "unbound"] if spec.dns.forward else ["knotd"]
    return [program for program in needed if not shutil.which(program, path=SYSTEM_PATH)]


def _with(spec: ClusterSpec, server: str) -> ClusterSpec:
    return replace(spec, dns=replace(spec.dns, server=server))


def _identity(manifest: Manifest) -> tuple[str, Key]:
    return manifest.kind.kind, Key(namespace(manifest.object), name_of(manifest.object))
