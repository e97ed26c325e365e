"""The generator as a process, against servers that behave, close, fail, or are not there."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.loadgen.records import Histogram, LoadRecord, Trial, TrialResult

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
FAILURE = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
RAW_USER = "from testbed.loadgen.user import RawHttpUser\nclass Get(RawHttpUser):\n    pass\n"
OWN_TASKS = """
from locust import task
from testbed.loadgen.user import RawHttpUser
class Shop(RawHttpUser):
    @task
    def buy(self):
        assert self.get("/a", name="first").status == 200
        self.request("POST", "/b", body=b"x")
"""
STOCK_USER = """
from locust import FastHttpUser, task
class Stock(FastHttpUser):
    @task
    def get(self):
        self.client.get("/")
"""
Answer = Callable[[int], bytes | None]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """An HTTP server on a loopback port; `answer` gets the number of the request on its connection, None closes it."""

    def converse(connection: socket.socket) -> None:
        with connection:
            number = 0
            while connection.recv(65536):
                number += 1
                response = answer(number)
                if response is None:
                    return
                connection.sendall(response)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_quietly, args=(converse, connection), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(1)


def _quietly(converse: Callable[[socket.socket], None], connection: socket.socket) -> None:
    try:
        converse(connection)
    except OSError:
        return  # the generator went away, as it does at the end of each trial


@contextmanager
def generator() -> Iterator[Callable[[str, Any], dict[str, Any]]]:
    """A resident generator; ask it."""
    argv = [sys.executable, "-m", "testbed.loadgen", "serve"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        questions, answers = process.stdin, process.stdout

        def ask(operation: str, argument: Any) -> dict[str, Any]:
            questions.write(json.dumps({operation: argument}) + "\n")
            questions.flush()
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer

        yield ask
        questions.close()
        assert process.wait(10) == 0


def trial(ask: Callable[[str, Any], dict[str, Any]], url: str, users: int = 2) -> TrialResult:
    """A short one."""
    doc = Trial(url, users, window_s=0.3, warmup_s=0.1, warmup_limit_s=0.2, cpus=(0,)).to_json()
    return TrialResult.from_json(ask("trial", doc)["result"])


@pytest.mark.parametrize("source", [RAW_USER, OWN_TASKS, STOCK_USER], ids=["raw", "own tasks", "stock"])
def test_every_sort_of_user_is_measured_to_the_microsecond(source: str) -> None:
    with server(lambda _: OK) as url, generator() as ask:
        assert ask("load", {"name": "x.py", "source": source})["loaded"]["name"] == "x.py"
        first, second = trial(ask, url), trial(ask, url)
    for result in (first, second):
        latency = Histogram.decode(result.latency)
        assert result.errors == 0, result.error
        assert result.count == latency.count > 50
        assert 0 < latency.percentile(50) < 20_000
        assert len(latency.counts) > 10, "whole milliseconds would be one or two buckets"
        assert sum(result.batches[-3:]) == pytest.approx(result.count, rel=0.2)
        assert [use.cpu for use in result.cpus] == [0]


def test_a_server_that_closes_now_and_then_costs_a_new_connection_and_no_error() -> None:
    with server(lambda number: OK if number <= 5 else None) as url, generator() as ask:
        ask("load", {"name": "x.py", "source": RAW_USER})
        result = trial(ask, url)
    assert result.errors == 0, result.error
    assert result.count > 20


def test_responses_that_come_in_pieces_are_put_together() -> None:
    pieces = [OK[:10], OK[10:30], OK[30:]]

    def slow(connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while connection.recv(65536):
                for piece in pieces:
                    connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener, generator() as ask:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for _ in range(3):
            threading.Thread(target=lambda: _quietly(slow, listener.accept()[0]), daemon=True).start()
        assert ask("check", {"host": url, "requests": 20})["checked"] == {"requests": 20, "errors": 0, "error": ""}
        ask("load", {"name": "x.py", "source": RAW_USER})
        result = trial(ask, url)
    assert result.errors == 0, result.error
    assert result.count > 20


def test_bad_statuses_are_errors_with_their_reason() -> None:
    with server(lambda _: FAILURE) as url, generator() as ask:
        ask("load", {"name": "x.py", "source": RAW_USER})
        result = trial(ask, url)
    assert result.count == 0
    assert result.errors > 0
    assert "status 500" in result.error


def test_nobody_listening_is_told_in_words_and_not_hammered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with generator() as ask:
        ask("load", {"name": "x.py", "source": RAW_USER})
        result = trial(ask, f"http://127.0.0.1:{port}")
    assert result.count == 0
    assert 0 < result.errors < 200
    assert "refused" in result.error


def test_questions_that_make_no_sense_are_answered_with_a_sentence() -> None:
    with generator() as ask:
        assert "no locustfile" in ask("trial", Trial("http://127.0.0.1:1", 1, 0.1).to_json())["error"]
        assert "not a request" in ask("dance", {})["error"]
        assert "no Locust user class" in ask("load", {"name": "x.py", "source": "x = 1\n"})["error"]


def test_a_locustfile_that_prints_does_not_spoil_the_answers() -> None:
    with generator() as ask:
        assert "loaded" in ask("load", {"name": "x.py", "source": f"print('hello')\n{RAW_USER}"})


@pytest.mark.parametrize("file", ["http_get.py", "http_connect.py", "stock_http.py"])
def test_the_locustfiles_of_the_repository_run(file: str) -> None:
    path = Path(__file__).parents[3] / "loadtests" / file
    with server(lambda _: OK) as url:
        argv = [sys.executable, "-m", "testbed.loadgen", "run", str(path), "--host", url]
        done = subprocess.run(
            [*argv, "--users", "2", "--seconds", "1.2"], capture_output=True, text=True, check=True, timeout=30
        )
    record = LoadRecord.from_json(json.loads(done.stdout))
    assert record.errors == 0, record.error
    assert record.requests > 50
    assert sum(int(row["requests"]) for row in record.names) == record.requests
    assert "requests" in done.stderr.splitlines()[0]


def test_our_user_appears_in_locusts_own_statistics() -> None:
    locustfile = Path(__file__).parents[3] / "loadtests" / "http_get.py"
    with server(lambda _: OK) as url:
        argv = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "-u", "1", "-t", "2s", "--json"]
        done = subprocess.run(
            [*argv, "--host", url, "--only-summary"], capture_output=True, text=True, check=True, timeout=60
        )
    (entry,) = json.loads(done.stdout)
    assert entry["name"] == "/"
    assert entry["num_requests"] > 50
    assert sum(entry["response_times"].values()) == entry["num_requests"]
    assert any(0 < float(key) < 1 for key in entry["response_times"]), "microseconds, not whole milliseconds"
