"""What a person with a root shell on a node may do to its service rules: take out what serves one ClusterIP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from testbed.waiting import wait_until
from tests.e2e.clusters import Cluster
from tests.e2e.command import Ran, cli

Json = dict[str, Any]
SERVED_S = 10.0


def edit(cluster: Cluster, node: str, address: str) -> str:
    """Remove by hand whatever leads a new connection to that ClusterIP on its way; the first command that did it.

    A map's element (both nftables modes), a rule (iptables) or a virtual server (IPVS). The rules may change between
    the look and the act, and then it looks again.
    """

    def attempt() -> str:
        commands = [*_servers(cluster, node, address)]
        if not commands:
            ruleset = json.loads(on_node(cluster, node, "nft", "--json", "--handle", "list", "ruleset"))["nftables"]
            commands = [*elements(ruleset, address), *rules(ruleset, address)]
        done = [" ".join(command) for command in commands if _run(cluster, node, *command).code == 0]
        return done[0] if done and len(done) == len(commands) else ""

    return wait_until(attempt, SERVED_S, f"something on {node} that serves {address}", every_s=0.2)


def on_node(cluster: Cluster, node: str, *argv: str) -> str:
    """What a program prints in the node's namespace."""
    return _run(cluster, node, *argv).expect().stdout


def _servers(cluster: Cluster, node: str, address: str) -> Iterator[list[str]]:
    """How to delete the virtual servers of that address; none where there is no ipvsadm, or no IPVS."""
    for line in _run(cluster, node, "ipvsadm", "--save", "--numeric").stdout.splitlines():
        if line.startswith("-A -t") and f"{address}:" in line:
            yield ["ipvsadm", "--delete-service", "--tcp-service", line.split()[2]]


def elements(ruleset: list[Json], address: str) -> Iterator[list[str]]:
    """How to delete the elements of verdict maps that are looked up by this destination."""
    for entry in ruleset:
        found = entry.get("map") or {}
        for key, verdict in found.get("elem") or ():
            parts = key.get("concat", []) if isinstance(key, dict) else [key]
            if address in parts and "goto" in verdict:
                written = " . ".join(map(str, parts))
                where = [found["family"], found["table"], found["name"]]
                yield ["nft", "delete", "element", *where, "{", written, "}"]


def rules(ruleset: list[Json], address: str) -> Iterator[list[str]]:
    """How to delete the rules that name it."""
    for entry in ruleset:
        found = entry.get("rule") or {}
        if found and address in json.dumps(found["expr"]):
            where = [found["family"], found["table"], found["chain"]]
            yield ["nft", "delete", "rule", *where, "handle", str(found["handle"])]


def _run(cluster: Cluster, node: str, *argv: str) -> Ran:
    return cli("exec", "--cluster", cluster.name, f"node/{node}", "--", *argv, env=cluster.env)
