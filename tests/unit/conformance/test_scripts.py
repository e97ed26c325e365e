"""What is run inside pods and nodes, as far as it is arithmetic."""

from __future__ import annotations

import struct

from tests.conformance import inject
from tests.e2e.edit import elements, rules

ADDRESS = "10.96.0.7"


def test_a_made_up_segment_is_valid_tcp() -> None:
    source, destination = ("10.244.1.2", 9000), ("10.244.0.3", 40000)
    segment = inject.made_up(source, destination, 5, 7)
    ports_and_numbers = struct.unpack_from("!HHII", segment)
    assert ports_and_numbers == (9000, 40000, 5, 7)
    pseudo = bytes([10, 244, 1, 2, 10, 244, 0, 3, 0, 6]) + struct.pack("!H", len(segment))
    assert inject.checksum(pseudo + segment) == 0


def test_an_element_of_a_verdict_map_is_deleted_by_its_key() -> None:
    found = {
        "family": "ip",
        "table": "t",
        "name": "services",
        "elem": [[{"concat": [ADDRESS, "tcp", 80]}, {"goto": {}}]],
    }
    endpoints = {**found, "name": "endpoints", "elem": [[{"concat": [ADDRESS, "tcp", 80, 0]}, {"concat": []}]]}
    (command,) = elements([{"map": found}, {"map": endpoints}], ADDRESS)
    assert command == ["nft", "delete", "element", "ip", "t", "services", "{", f"{ADDRESS} . tcp . 80", "}"]


def test_a_rule_that_names_the_address_is_deleted_by_its_handle() -> None:
    def rule(handle: int, right: str) -> dict[str, object]:
        expression = [{"match": {"op": "==", "right": right}}]
        return {
            "rule": {"family": "ip", "table": "nat", "chain": "KUBE-SERVICES", "handle": handle, "expr": expression}
        }

    (command,) = rules([rule(4, "10.96.0.8"), rule(5, ADDRESS)], ADDRESS)
    assert command[-2:] == ["handle", "5"]
