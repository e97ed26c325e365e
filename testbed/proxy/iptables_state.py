"""What iptables-save prints, read back, and what it takes to get from there to what should be. Pure.

A step is what must be in one transaction: a chain with its rules, or a single rule. Steps may be gathered into
transactions in any way, in their order: every state between them serves, and none leads to a chain that is not there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from testbed.proxy.iptables_rules import DISPATCHING, SERVICES, Chain, Rules
from testbed.proxy.iptables_table import FIXED, JUMPS, is_jump, is_ours

State = Mapping[Chain, Sequence[str]]
"""The rules of each chain."""

_RULE = re.compile(r"(?:\[\d+:\d+\] )?-A (\S+) ?(.*)")


class Step(NamedTuple):
    """Lines for iptables-restore, of one table."""

    table: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """What should be there."""

    rules: Rules
    last: tuple[str, ...]
    """How KUBE-SERVICES ends."""


def parse(saved: Iterable[str]) -> dict[Chain, list[str]]:
    """Read tables that iptables-save has printed, with or without counters."""
    found: dict[Chain, list[str]] = {}
    for text in saved:
        table = ""
        for line in text.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":"):
                found.setdefault(Chain(table, line[1:].split(" ")[0]), [])
            elif match := _RULE.match(line):
                found.setdefault(Chain(table, match[1]), []).append(match[2])
    return found


def load(have: State, wanted: Wanted) -> Iterator[Step]:
    """Steps from whatever is there to what should be."""
    chains = FIXED | {each: () for each in DISPATCHING if each not in have} | wanted.rules.chains
    yield from (_rewritten(each, rules) for each, rules in chains.items() if _rules(have, each) != rules)
    there = _dispatched(have) - Counter((SERVICES, rule) for rule in wanted.last)
    yield from _added(wanted.rules.dispatched - there)
    yield from _ended(have.get(SERVICES, ()), wanted.last)
    jumps = _jumps(have)
    yield from _added(Counter(dict.fromkeys((each for each in reversed(JUMPS) if each not in jumps), 1)))
    yield from _deleted(jumps - Counter(JUMPS))
    yield from _deleted(there - wanted.rules.dispatched)
    yield from _removed([each for each in have if is_ours(each) and each not in chains and each not in DISPATCHING])


def change(before: Rules, after: Rules) -> Iterator[Step]:
    """Steps from what some Services had to what they shall have."""
    added, deleted = after.dispatched - before.dispatched, before.dispatched - after.dispatched
    yield from _added(_of("filter", added))
    for chain, rules in after.chains.items():
        if before.chains.get(chain) != rules:
            yield _rewritten(chain, rules)
    yield from _added(_of("nat", added))
    yield from _deleted(_of("nat", deleted))
    yield from _removed([each for each in before.chains if each not in after.chains])
    yield from _deleted(_of("filter", deleted))


def teardown(have: State) -> Iterator[Step]:
    """Steps that leave nothing of kube-proxy's."""
    yield from _deleted(_jumps(have))
    yield from _removed([each for each in have if is_ours(each)])


def is_deserted(saved: str) -> bool:
    """Whether nobody but kube-proxy has anything in this table."""
    chains = re.findall(r"^:(\S+) (\S+)", saved, re.MULTILINE)
    table = saved.partition("*")[2].partition("\n")[0]
    return all(policy == "ACCEPT" or is_ours(Chain(table, name)) for name, policy in chains) and all(
        is_ours(chain) or all(map(is_jump, rules)) for chain, rules in parse([saved]).items()
    )


def differences(have: State, wanted: Wanted) -> list[str]:
    """`- …` what is there and should not be, `+ …` what should be there and is not."""
    chains = FIXED | wanted.rules.chains
    there, here = _jumps(have), wanted.rules.dispatched + Counter(JUMPS)
    here.update((SERVICES, rule) for rule in wanted.last)
    there.update((chain, rule) for chain, rules in have.items() if is_ours(chain) for rule in ("", *rules))
    here.update((chain, "") for chain in DISPATCHING)
    here.update((chain, rule) for chain, rules in chains.items() for rule in ("", *rules))
    told = [f"- {_shown(*each)}" for each in (there - here).elements()]
    told += [f"+ {_shown(*each)}" for each in (here - there).elements()]
    return told or list(_disorder(have, wanted, chains))


def _disorder(have: State, wanted: Wanted, chains: State) -> Iterator[str]:
    """What is said where all rules are there and some are not in their place."""
    for chain, rules in chains.items():
        if tuple(have[chain]) != rules:
            yield from (f"+ {_shown(chain, rule)} (in this order)" for rule in rules)
    if not _is_ended(have[SERVICES], wanted.last):
        yield from (f"+ {_shown(SERVICES, rule)} (at the end)" for rule in wanted.last)


def script(steps: Iterable[Step]) -> str:
    """For iptables-restore: a transaction for each table in turn."""
    parts = []
    for table, some in groupby(steps, key=lambda step: step.table):
        lines = [line for step in some for line in step.lines]
        parts.append("\n".join([f"*{table}", *lines, "COMMIT\n"]))
    return "".join(parts)


def _rules(have: State, chain: Chain) -> tuple[str, ...] | None:
    return tuple(have[chain]) if chain in have else None


def _dispatched(have: State) -> Counter[tuple[Chain, str]]:
    return Counter((chain, rule) for chain in DISPATCHING for rule in have.get(chain, ()))


def _jumps(have: State) -> Counter[tuple[Chain, str]]:
    return Counter(
        (chain, rule) for chain, rules in have.items() if not is_ours(chain) for rule in rules if is_jump(rule)
    )


def _of(table: str, rules: Counter[tuple[Chain, str]]) -> Counter[tuple[Chain, str]]:
    return Counter({each: count for each, count in rules.items() if each[0].table == table})


def _rewritten(chain: Chain, rules: Iterable[str]) -> Step:
    return Step(chain.table, (f":{chain.name} - [0:0]", *(f"-A {chain.name} {rule}" for rule in rules)))


def _added(rules: Counter[tuple[Chain, str]]) -> Iterator[Step]:
    """At the top: KUBE-SERVICES has an end that must stay one, and elsewhere it does not matter."""
    return (Step(chain.table, (f"-I {chain.name} 1 {rule}",)) for chain, rule in rules.elements())


def _deleted(rules: Counter[tuple[Chain, str]]) -> Iterator[Step]:
    return (Step(chain.table, (f"-D {chain.name} {rule}",)) for chain, rule in rules.elements())


def _removed(chains: Collection[Chain]) -> Iterator[Step]:
    """First emptied, all of them, so that none of them leads to another."""
    yield from (_rewritten(each, ()) for each in chains)
    yield from (Step(each.table, (f"-X {each.name}",)) for each in chains)


def _ended(there: Sequence[str], last: Sequence[str]) -> Iterator[Step]:
    if not _is_ended(there, last):
        gone = (f"-D {SERVICES.name} {rule}" for rule in last if rule in there)
        yield Step(SERVICES.table, (*gone, *(f"-A {SERVICES.name} {rule}" for rule in last)))


def _is_ended(there: Sequence[str], last: Sequence[str]) -> bool:
    return not last or list(there[-len(last) :]) == list(last)


def _shown(chain: Chain, rule: str) -> str:
    return f"-t {chain.table} -A {chain.name} {rule}" if rule else f"-t {chain.table} -N {chain.name}"
