"""Figures as Prometheus reads them."""

from testbed.node.exposition import Family, Histogram, Sample, render


def test_a_family_is_its_help_its_type_and_a_line_to_each_sample() -> None:
    samples = [Sample(3, {"code": "200"}), Sample(0.5, {"code": "503", "zone": "b"}), Sample(7)]
    assert render([Family("probes_total", "counter", "Probes so far", samples)]) == (
        "# HELP probes_total Probes so far\n"
        "# TYPE probes_total counter\n"
        'probes_total{code="200"} 3\n'
        'probes_total{code="503",zone="b"} 0.5\n'
        "probes_total 7\n"
    )


def test_buckets_of_a_histogram_hold_what_is_at_most_their_bound() -> None:
    histogram = Histogram((0.25, 1, 60))
    for value in (0.25, 0.3, 1.0, 59.0, 61.0):
        histogram.observe(value)
    assert render([Family("wait_seconds", "histogram", "Waiting", histogram.samples({"node": "a"}))]).splitlines() == [
        "# HELP wait_seconds Waiting",
        "# TYPE wait_seconds histogram",
        'wait_seconds_bucket{node="a",le="0.25"} 1',
        'wait_seconds_bucket{node="a",le="1"} 3',
        'wait_seconds_bucket{node="a",le="60"} 4',
        'wait_seconds_bucket{node="a",le="+Inf"} 5',
        'wait_seconds_sum{node="a"} 121.55',
        'wait_seconds_count{node="a"} 5',
    ]
