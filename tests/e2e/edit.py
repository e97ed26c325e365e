"""What a person with a root shell on a node may do to its service rules: take out what serves one ClusterIP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.e2e.clusters import Cluster
from tests.e2e.command import cli

Json = dict[str, Any]


def edit(cluster: Cluster, node: str, address: str) -> str:
    """Remove by hand whatever leads a new connection to that ClusterIP on its way; the command that did it.

    A map's element (both nftables modes), a rule (iptables) or a virtual server (IPVS).
    """
    for line in on_node(cluster, node, "ipvsadm", "--save", "--numeric", missing_is_fine=True).splitlines():
        if line.startswith("-A -t") and f"{address}:" in line:
            return _done(cluster, node, ["ipvsadm", "--delete-service", "--tcp-service", line.split()[2]])
    ruleset = json.loads(on_node(cluster, node, "nft", "--json", "--handle", "list", "ruleset"))["nftables"]
    commands = [*_elements(ruleset, address), *_rules(ruleset, address)]
    assert commands, f"nothing in the ruleset of {node} serves {address}"
    for command in commands:
        _done(cluster, node, command)
    return " ".join(commands[0])


def on_node(cluster: Cluster, node: str, *argv: str, missing_is_fine: bool = False) -> str:
    """What a program prints in the node's namespace; nothing where there is none of that name."""
    ran = cli("exec", f"node/{node}", "--cluster", cluster.name, "--", *argv, env=cluster.env)
    return ran.stdout if missing_is_fine and ran.code else ran.expect().stdout


def _elements(ruleset: list[Json], address: str) -> Iterator[list[str]]:
    """How to delete the elements of verdict maps that are looked up by this destination."""
    for entry in ruleset:
        found = entry.get("map") or {}
        for key, verdict in found.get("elem") or ():
            parts = key.get("concat", []) if isinstance(key, dict) else [key]
            if address in parts and isinstance(verdict, dict):
                written = " . ".join(map(str, parts))
                where = [found["family"], found["table"], found["name"]]
                yield ["nft", "delete", "element", *where, "{", written, "}"]


def _rules(ruleset: list[Json], address: str) -> Iterator[list[str]]:
    """How to delete the rules that name it."""
    for entry in ruleset:
        found = entry.get("rule") or {}
        if found and address in json.dumps(found["expr"]):
            where = [found["family"], found["table"], found["chain"]]
            yield ["nft", "delete", "rule", *where, "handle", str(found["handle"])]


def _done(cluster: Cluster, node: str, command: list[str]) -> str:
    on_node(cluster, node, *command)
    return " ".join(command)
