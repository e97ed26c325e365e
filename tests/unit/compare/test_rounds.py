"""The loop of rounds over a bench that answers at once, and the conversation with a program in a pod."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from testbed.client.streams import Channel
from testbed.compare.bench import ends
from testbed.compare.load import Comparison, load_comparison
from testbed.compare.measurement import FILE, Phase, begin, phase, read
from testbed.compare.path import Ends
from testbed.compare.placement import Placement
from testbed.compare.rounds import Measuring, trials
from testbed.compare.schedule import CONTROL
from testbed.compare.session import Refused, Session
from testbed.compare.stopping import Pace
from testbed.compare.workloads import PORT
from testbed.errors import CommandFailed
from testbed.loadgen.records import Trial
from testbed.topology.plan import plan
from tests.unit.compare.synthetic import EFFECTS_US, environment, result

FILE_OF_REPOSITORY = Path(__file__).parents[3] / "loadtests" / "hostnetwork-vs-overlay.yaml"
PLACEMENT = Placement("cross-cpu", 0, 1)


class InstantBench:
    """Answers every trial with its variant's known latency; after `most` trials its generator is gone."""

    def __init__(self, comparison: Comparison, most: int = 10_000) -> None:
        variants = environment().variants
        self.routes = {name: Route(variants[name]) for name in comparison.variants}
        self.asked: list[tuple[str, Trial]] = []
        self.forgotten: list[str] = []
        self._most = most
        self._chance = random.Random(1)

    async def forget_connections(self, variant: str) -> None:
        """Note it."""
        self.forgotten.append(variant)

    async def measure(self, variant: str, trial: Trial) -> Phase:
        """Its figures."""
        self.asked.append((variant, trial))
        if len(self.asked) > self._most:
            raise CommandFailed("the program in pod load-a ended with 137")
        return phase(trial.users, result(60 + EFFECTS_US[variant], self._chance))


class Route:
    """A variant's info, and no sessions."""

    def __init__(self, info: Any) -> None:
        self.info = info


def measuring(bench: InstantBench, comparison: Comparison, directory: Path) -> Measuring:
    """The loop, with time for three or so rounds."""
    return Measuring(comparison, bench, PLACEMENT, Pace(budget_s=0.2), begin(directory))


async def test_every_round_holds_every_variant_and_the_baseline_twice(tmp_path: Path) -> None:
    comparison = load_comparison(FILE_OF_REPOSITORY)
    bench = InstantBench(comparison)
    said: list[str] = []
    reason = await measuring(bench, comparison, tmp_path).run(1, said.append)
    data = read(tmp_path / FILE)
    assert "time for rounds" in reason
    entries = {*comparison.variants, CONTROL}
    assert {one.variant for one in data if one.round == 1} == entries
    assert len(data) % len(entries) == 0
    assert bench.forgotten.count("host") == 2 * bench.forgotten.count("vxlan")
    assert [trial.users for _, trial in bench.asked[:2]] == [1, comparison.users]
    assert len(said) == len(data)
    assert "round 1 of about" in said[0]


async def test_what_was_measured_before_a_generator_died_is_on_disk(tmp_path: Path) -> None:
    comparison = load_comparison(FILE_OF_REPOSITORY)
    with pytest.raises(CommandFailed, match="ended with 137"):
        await measuring(InstantBench(comparison, most=7), comparison, tmp_path).run(1, lambda _: None)
    assert len(read(tmp_path / FILE)) == 3


def test_a_trial_is_one_user_alone_and_then_all_of_them() -> None:
    lone, loaded = trials("http://x:1", 16, Pace(), PLACEMENT)
    assert (lone.users, loaded.users) == (1, 16)
    assert lone.settle_s > 0 == loaded.settle_s
    assert lone.cpus == loaded.cpus == (0, 1)


def test_what_the_wire_should_show_follows_from_variant_and_backend() -> None:
    comparison = load_comparison(FILE_OF_REPOSITORY)
    vxlan, host_gw = (plan(cluster.topology, runtime="netns") for cluster in comparison.clusters)
    here, there = (str(node.address.ip) for node in vxlan.nodes)
    variants = comparison.variants
    assert ends(variants["host"], vxlan, "h", "t") == Ends("h", "t", PORT, crosses=True, tunnel=None)
    assert ends(variants["vxlan"], vxlan, "p", "q").tunnel == (here, there, vxlan.network.vni)
    assert ends(variants["clusterip"], vxlan, "p", "q").tunnel == (here, there, vxlan.network.vni)
    assert ends(variants["host-gw"], host_gw, "p", "q") == Ends("p", "q", PORT, crosses=True, tunnel=None)


class Stream:
    """A program that says what it was told to say."""

    def __init__(self, *said: tuple[Channel, bytes], exit_code: int | None = None) -> None:
        self._said, self.exit_code = said, exit_code
        self.sent = b""

    async def send(self, data: bytes) -> None:
        """Note it."""
        self.sent += data

    async def __aiter__(self) -> AsyncIterator[tuple[Channel, bytes]]:
        for said in self._said:
            yield said


async def test_answers_are_lines_however_they_arrive() -> None:
    stream = Stream((Channel.STDOUT, b'{"a"'), (Channel.STDERR, b"noise\n"), (Channel.STDOUT, b': 1}\n{"b": 2}\n'))
    session = Session(stream, "load-a")
    assert await session.ask("x", {}) == {"a": 1}
    assert await session.ask("y", {"z": 1}) == {"b": 2}
    assert stream.sent == b'{"x":{}}\n{"y":{"z":1}}\n'


async def test_a_refusal_is_raised_in_the_programs_own_words() -> None:
    session = Session(Stream((Channel.STDOUT, b'{"error": "no locustfile"}\n')), "load-a")
    with pytest.raises(Refused, match="pod load-a: no locustfile"):
        await session.ask("trial", {})


async def test_a_program_that_ended_is_told_with_its_last_words() -> None:
    session = Session(Stream((Channel.STDERR, b"Traceback\nMemoryError\n"), exit_code=137), "load-a")
    with pytest.raises(CommandFailed, match=r"ended with 137 and said: Traceback \| MemoryError"):
        await session.ask("trial", {})
