"""The probe as a process."""

import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest


def ask(*lines: str) -> list[dict[str, Any]]:
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


def test_the_processes_behind_an_address_and_their_cpu_time_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (served,) = ask(json.dumps({"serving": {"address": "127.0.0.1", "port": port}}))
        assert os.getpid() in served["pids"]
        (elsewhere,) = ask(json.dumps({"serving": {"address": "192.0.2.1", "port": port}}))
    assert elsewhere == {"pids": []}
    assert ask('{"cpu": {"pids": [4194304]}}') == [{"cpu_us": 0}]


def test_the_cpu_time_of_a_process_grows_as_it_works() -> None:
    question = json.dumps({"cpu": {"pids": [os.getpid()]}})
    (before,) = ask(question)
    started = time.thread_time()
    while time.thread_time() - started < 0.2:
        pass
    (after,) = ask(question)
    assert after["cpu_us"] - before["cpu_us"] == pytest.approx(200_000, abs=100_000)
