from __future__ import annotations

import socket
import threading

import pytest

from tests.e2e import inpod


@pytest.fixture
def silent_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_closed_port_refuses(silent_port: int) -> None:
    assert inpod.ask("tcp", host="127.0.0.1", port=silent_port)["outcome"] == "REFUSED"
    assert inpod.ask("udp", host="127.0.0.1", port=silent_port, message="x")["outcome"] == "REFUSED"


def test_a_server_that_says_nothing_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = inpod.ask("http", host="127.0.0.1", port=listener.getsockname()[1], timeout_s=0.05)
    assert answer["outcome"] == "TIMEOUT"


def test_an_answer_that_is_no_http_is_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        answer = inpod.ask("http", host="127.0.0.1", port=listener.getsockname()[1])
        thread.join()
    assert answer["outcome"] == "OTHER"


def test_an_echo_request_bears_a_valid_checksum() -> None:
    assert inpod.checksum(inpod.echo_request(7, 101)) == 0
    assert len(inpod.echo_request(7, 100)) == 108


def test_a_pattern_shows_a_lost_part() -> None:
    pattern = inpod.pattern(60_000)
    assert len(pattern) == 60_000
    assert pattern[:100] != pattern[4:104]
