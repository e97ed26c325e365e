from __future__ import annotations

from tests.benchmarks.__main__ import BENCHES
from tests.benchmarks.proxy_objects import HERE, SLICE, addresses, ports, slices


def test_every_benchmark_and_every_figure_has_a_name_of_its_own() -> None:
    benches = [bench.name for bench in BENCHES]
    targets = [target.name for bench in BENCHES for target in bench.targets]
    assert len(set(benches)) == len(benches)
    assert len(set(targets)) == len(targets)


def test_services_by_the_thousand_have_addresses_of_their_own() -> None:
    every = ports(44_000)
    assert len({port.cluster_ip for (port,) in every.values()}) == 44_000
    assert all(port.cluster_ip in HERE.service_cidr for (port,) in every.values())


def test_a_crowd_is_cut_into_slices_as_the_controller_does() -> None:
    assert [len(each["endpoints"]) for each in slices(1, addresses(1, 250))] == [SLICE, SLICE, 50]
