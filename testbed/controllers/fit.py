"""Which nodes a pod may go to, and why not the others, in the words of Kubernetes' scheduler. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from testbed.api.objects import Object, is_ready, labels, name, namespace, spec, status
from testbed.api.selectors import structured_selector
from testbed.api.wellknown import HOSTNAME_LABEL, ROLE_LABEL
from testbed.controllers.occupancy import Occupants, Port, host_ports, repulsion, required_affinity

_ANY_ADDRESS = {"", "0.0.0.0", "::"}  # noqa: S104  what a pod's hostIP may say, not what we listen on


@dataclass(frozen=True)
class Candidate:
    """A node, and the pods that are on it or on their way to it."""

    node: Object
    occupants: Occupants


Test = Callable[[Object, Candidate], str]
"""Empty where the pod may go there, otherwise why not."""


def obstacle(pod: Object, candidate: Candidate) -> str:
    """The first reason why `pod` cannot go to that node; empty where it can."""
    return next(filter(None, (test(pod, candidate) for test in TESTS)), "")


def explain(obstacles: Iterable[str]) -> str:
    """The message of a pod that fits nowhere: `0/2 nodes are available: 2 node(s) were unschedulable.`"""
    counted = Counter(obstacles)
    if not counted:
        return "no nodes available to schedule pods"
    reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in counted.items()))
    return f"0/{counted.total()} nodes are available: {reasons}."


def _schedulable(_pod: Object, candidate: Candidate) -> str:
    node = candidate.node
    if labels(node).get(ROLE_LABEL) == "external":
        return "node(s) were outside the cluster"
    if not is_ready(node):
        return "node(s) were not ready"
    return "node(s) were unschedulable" if spec(node).get("unschedulable") else ""


def _tolerated(pod: Object, candidate: Candidate) -> str:
    tolerations = spec(pod).get("tolerations") or []
    for taint in spec(candidate.node).get("taints") or []:
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(t, taint) for t in tolerations):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    return ""


def _selected(pod: Object, candidate: Candidate) -> str:
    wanted: Mapping[str, str] = spec(pod).get("nodeSelector") or {}
    required = required_affinity(pod, "nodeAffinity")
    is_like = not wanted or wanted.items() <= labels(candidate.node).items()
    if is_like and (not required or any(_term_matches(t, candidate.node) for t in required["nodeSelectorTerms"])):
        return ""
    return "node(s) didn't match Pod's node affinity/selector"


def _ports_free(pod: Object, candidate: Candidate) -> str:
    taken = candidate.occupants.ports
    if taken and any(_clash(a, b) for b in host_ports(pod) for ports in taken.values() for a in ports):
        return "node(s) didn't have free ports for the requested pod ports"
    return ""


def _apart(pod: Object, candidate: Candidate) -> str:
    """Required anti-affinity between nodes, in both directions. Wider topologies are not looked at."""
    terms, occupants = repulsion(pod), candidate.occupants
    if terms and any(_repels(term, pod, other) for other in occupants.pods.values() for term in terms):
        return "node(s) didn't match pod anti-affinity rules"
    if any(_repels(term, other, pod) for other in occupants.repelling.values() for term in repulsion(other)):
        return "node(s) didn't satisfy existing pods anti-affinity rules"
    return ""


def _room(_pod: Object, candidate: Candidate) -> str:
    limit = (status(candidate.node).get("allocatable") or {}).get("pods")
    return "Too many pods" if limit is not None and len(candidate.occupants.pods) >= int(limit) else ""


TESTS: tuple[Test, ...] = (_schedulable, _tolerated, _selected, _room, _ports_free, _apart)


def _repels(term: Mapping[str, Any], pod: Object, other: Object) -> bool:
    namespaces = term.get("namespaces") or [namespace(pod)]
    if term.get("topologyKey") != HOSTNAME_LABEL or namespace(other) not in namespaces:
        return False
    return structured_selector(term.get("labelSelector") or {})(other)


def _term_matches(term: Mapping[str, Any], node: Object) -> bool:
    by_label = structured_selector({"matchExpressions": term.get("matchExpressions") or []})
    by_field = structured_selector({"matchExpressions": term.get("matchFields") or []})
    return by_label(node) and by_field({"metadata": {"labels": {"metadata.name": name(node)}}})


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in {None, "", taint["key"]}
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))


def _clash(a: Port, b: Port) -> bool:
    same_address = a[0] == b[0] or a[0] in _ANY_ADDRESS or b[0] in _ANY_ADDRESS
    return a[1:] == b[1:] and same_address
