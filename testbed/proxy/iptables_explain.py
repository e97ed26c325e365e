"""The way of a new connection through kube-proxy's iptables rules, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from testbed.proxy.iptables_rules import DISPATCHING, NODE_PORTS, Names
from testbed.proxy.mode import Iptables
from testbed.proxy.virtualport import VirtualPort

_RULE = re.compile(r"\[(\d+):(\d+)\] -A (\S+) (.*)")


def explain(iptables: Iptables, port: VirtualPort) -> list[str]:
    """The rules that the kernel holds now for this port, as a packet meets them, and who sticks to an endpoint."""
    names = Names(port)
    there = {table: _counted(table, iptables.save(table)) for table in ("nat", "filter")}
    lines: list[str] = []
    for chain in DISPATCHING:
        lines += (line for rule, line in there[chain.table].get(chain.name, ()) if _is_of(port, names, rule))
        if chain == NODE_PORTS:  # the last that leads to the port's own chains
            lines += [line for name in _own_chains(names) for _, line in there["nat"].get(name, ())]
    for endpoint, name in names.endpoints.items() if port.affinity_s else ():
        clients = ", ".join(iptables.recent(name)) or "no client"
        lines.append(f"list {name}, of {endpoint.address}:{endpoint.port}: {clients}")
    return lines


def _counted(table: str, saved: str) -> Mapping[str, Sequence[tuple[str, str]]]:
    """By chain: each rule, and a sentence on it."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in saved.splitlines():
        if match := _RULE.match(line):
            packets, size, chain, rule = match.groups()
            found.setdefault(chain, []).append((rule, f"{table} {chain}: {rule} ({packets} packets, {size} bytes)"))
    return found


def _is_of(port: VirtualPort, names: Names, rule: str) -> bool:
    is_named = f'--comment "{names.title}"' in rule or f'--comment "{names.title} ' in rule
    return is_named and f"-p {port.protocol} " in rule


def _own_chains(names: Names) -> Iterator[str]:
    yield from (names.firewall, names.external, names.cluster, names.local)
    yield from names.endpoints.values()
