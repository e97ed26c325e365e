"""Records on disk, gates, placement."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.compare.environment import Environment
from testbed.compare.gates import failed_gates
from testbed.compare.measurement import FILE, append, begin, phase, read
from testbed.compare.placement import Placement, choose, cores, parse_cpu_list
from testbed.compare.results import read_results, results
from testbed.errors import BadInput
from tests.unit.compare.synthetic import environment, measurements, result


def test_what_was_measured_is_read_back_line_by_line(tmp_path: Path) -> None:
    data = measurements(2)
    file = begin(tmp_path / "new" / "directory")
    for one in data:
        append(file, one)
    assert read(file) == data


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    data = measurements(1)
    file = begin(tmp_path)
    for one in data:
        append(file, one)
    file.write_text(file.read_text()[:-20])
    assert read(file) == data[:-1]


def test_a_new_measurement_forgets_the_old_one(tmp_path: Path) -> None:
    append(begin(tmp_path), measurements(1)[0])
    assert read(begin(tmp_path)) == []


def test_results_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    data = measurements(7)
    environment().write(tmp_path)
    file = begin(tmp_path)
    for one in data:
        append(file, one)
    assert Environment.read(tmp_path) == environment()
    assert read_results(tmp_path) == results(environment(), data)


def test_a_directory_without_data_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"environment\.json"):
        read_results(tmp_path)
    environment().write(tmp_path)
    with pytest.raises(BadInput, match=FILE):
        read_results(tmp_path)


def test_a_figure_per_request_is_divided_by_requests() -> None:
    one = measurements(1)[0].loaded
    assert one.requests_per_s == one.count / one.seconds
    assert one.busy_us_per_request == pytest.approx(sum(use.busy_us for use in one.cpus) / one.count, abs=1e-3)
    assert one.p50_us == pytest.approx(one.histogram.percentile(50), abs=1e-3)


def test_cpu_per_request_is_that_of_both_ends_and_the_rest_is_somebody_elses() -> None:
    one = phase(16, replace(result(60.0, random.Random(1)), generator_us=400_000, batches=(10_000, 10_000)), 200_000)
    assert one.generator_us_per_request == 20
    assert one.server_us_per_request == 10
    assert one.cpu_us_per_request == 30
    busy = replace(one, busy_us_per_request=130.0)
    assert busy.elsewhere == pytest.approx(100 * busy.count / (2e6 * 2))
    unseen = replace(busy, server_us_per_request=0.0)
    assert unseen.cpu_us_per_request == 130
    assert unseen.elsewhere == 0


def test_gates_name_what_went_wrong() -> None:
    good = phase(1, result(60.0, random.Random(1)))

    def failed(**changes: object) -> tuple[str, ...]:
        return failed_gates(good, replace(good, users=16, **changes))  # type: ignore[arg-type]

    assert failed() == ()
    assert failed(errors=1) == (), "one in twenty thousand is within the limit"
    assert failed(errors=100, error="refused") == ("16 users: 100 of 20,100 requests failed: refused",)
    assert failed(count=0) == ("16 users: no request was answered",)
    assert "hypervisor took 5.0%" in failed(steal=0.05)[0]
    assert "too few for a median" in failed_gates(replace(good, count=3), good)[0]


def test_a_busy_generator_fails_an_open_loop_only() -> None:
    good = phase(1, result(60.0, random.Random(1)))
    busy = replace(good, generator_busy=0.95)
    assert failed_gates(good, busy) == ()
    assert "95% busy" in failed_gates(good, busy, open_loop=True)[0]


@pytest.mark.parametrize(
    ("found", "placement"),
    [
        ([[0]], Placement("same-cpu", 0, 0)),
        ([[0], [1]], Placement("cross-cpu", 0, 1)),
        ([[0, 4], [1, 5], [2, 6], [3, 7]], Placement("cross-cpu", 2, 3)),
    ],
)
def test_client_and_server_get_a_core_each_where_there_are_two(found: list[list[int]], placement: Placement) -> None:
    assert choose(found) == placement
    assert placement.cpus == tuple(sorted({placement.client, placement.server}))


def test_this_machine_has_a_core() -> None:
    assert choose(cores())


def test_cpu_lists_are_read_as_the_kernel_writes_them() -> None:
    assert parse_cpu_list("0,2-4\n") == {0, 2, 3, 4}
    assert parse_cpu_list("") == set()
