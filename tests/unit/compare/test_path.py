"""Does traffic take the path that its variant's name says?"""

from typing import Any

import pytest

from testbed.compare.path import DISPROVED, PROVEN, Ends, prove

PLAIN = {"source": "10.244.0.2", "target": "10.244.1.2", "target_port": 9080, "vni": None, "frames": 120} | {
    "outer_source": "",
    "outer_target": "",
}
TUNNEL = {**PLAIN, "vni": 1, "outer_source": "198.18.0.10", "outer_target": "198.18.0.11"}
IN_TUNNEL = Ends("10.244.0.2", "10.244.1.2", 9080, crosses=True, tunnel=("198.18.0.10", "198.18.0.11", 1))
IN_THE_OPEN = Ends("10.244.0.2", "10.244.1.2", 9080, crosses=True, tunnel=None)
ON_ONE_NODE = Ends("10.244.0.2", "10.244.1.2", 9080, crosses=False, tunnel=None)
OTHER_TRAFFIC = {**PLAIN, "target_port": 6443, "frames": 1000}


@pytest.mark.parametrize(
    ("ends", "flows", "status"),
    [
        (IN_TUNNEL, [TUNNEL], PROVEN),
        (IN_TUNNEL, [TUNNEL, OTHER_TRAFFIC], PROVEN),
        (IN_TUNNEL, [], DISPROVED),
        (IN_TUNNEL, [PLAIN], DISPROVED),
        (IN_TUNNEL, [TUNNEL, PLAIN], DISPROVED),
        (IN_TUNNEL, [{**TUNNEL, "vni": 2}], DISPROVED),
        (IN_TUNNEL, [{**TUNNEL, "outer_target": "198.18.0.12"}], DISPROVED),
        (IN_TUNNEL, [{**TUNNEL, "source": "10.244.0.0"}], DISPROVED),
        (IN_TUNNEL, [{**TUNNEL, "frames": 49}], DISPROVED),
        (IN_THE_OPEN, [PLAIN], PROVEN),
        (IN_THE_OPEN, [TUNNEL], DISPROVED),
        (IN_THE_OPEN, [PLAIN, TUNNEL], DISPROVED),
        (IN_THE_OPEN, [{**PLAIN, "source": "198.18.0.10"}], DISPROVED),
        (ON_ONE_NODE, [OTHER_TRAFFIC], PROVEN),
        (ON_ONE_NODE, [PLAIN], DISPROVED),
    ],
)
def test_a_path_is_proven_by_its_packets_alone(ends: Ends, flows: list[dict[str, Any]], status: str) -> None:
    assert prove(ends, flows, requests=50).status == status


def test_the_finding_is_told_in_numbers() -> None:
    detail = prove(IN_TUNNEL, [TUNNEL], requests=50).detail
    assert "120 packets in VXLAN" in detail
    assert "VNI 1" in detail
    assert "50 requests" in detail
