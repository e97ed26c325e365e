"""The probe as a process."""

import json
import subprocess
import sys


def ask(*lines: str) -> list[dict[str, object]]:
    """Give the probe some lines and return its answers."""
    argv = [sys.executable, "-m", "testbed.loadgen.probe", "serve"]
    done = subprocess.run(
        argv, input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_counters_and_machine_are_answered_line_by_line() -> None:
    counters, machine = ask('{"counters": {}}', '{"machine": {}}')
    assert "devices" in counters
    assert machine["kernel"]


def test_questions_that_make_no_sense_are_answered_with_a_sentence() -> None:
    answers = ask('{"dance": {}}', "[]", '{"stop": {}}', '{"conntrack-delete": {"target": "nowhere"}}')
    assert all("error" in answer for answer in answers)
    assert len(answers) == 4


def test_a_probe_that_may_not_or_cannot_capture_says_so() -> None:
    (answer,) = ask('{"capture": {"device": "no-such-device"}}')
    assert "no-such-device" in str(answer["error"]) or "NET_RAW" in str(answer["error"])
