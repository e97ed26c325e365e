from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

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


def test_a_survey_counts_who_answers(talker: int) -> None:
    answer = inpod.ask("survey", host="127.0.0.1", port=talker, times=5)
    assert answer["names"] == {"me": 5}


def test_a_conversation_is_one_connection(talker: int) -> None:
    answer = inpod.ask("converse", host="127.0.0.1", port=talker, seconds=0.12)
    assert answer["names"]["me"] >= 2


def test_a_knock_tells_when_it_was_let_in(talker: int) -> None:
    before = time.monotonic()
    (moment,) = inpod.ask("knock", hosts=["127.0.0.1"], port=talker, timeout_s=5)["moments"]
    assert before <= moment <= time.monotonic()


def test_who_knocks_in_vain_gives_up(silent_port: int) -> None:
    assert inpod.ask("knock", hosts=["127.0.0.1"], port=silent_port, timeout_s=0.05)["outcome"] == "TIMEOUT"


@pytest.mark.parametrize(("answered", "lost"), [(True, 0), (False, 4)])
def test_twins_count_what_is_lost(answered: bool, lost: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        if answered:
            threading.Thread(target=echo_datagrams, args=(server, 4), daemon=True).start()
        answer = inpod.ask("twins", host="127.0.0.1", port=server.getsockname()[1], pairs=2, timeout_s=0.3)
    assert (answer["sent"], answer["lost"]) == (4, lost)


def test_a_sender_goes_on_until_somebody_answers(silent_port: int) -> None:
    threading.Timer(0.1, answer_once, args=(silent_port,)).start()
    answer = inpod.ask(
        "send_until_answered", host="127.0.0.1", port=silent_port, message="hello", source_port=0, timeout_s=5
    )
    assert answer["body"] == "hello"


@pytest.fixture
def talker() -> Iterator[int]:
    """The port of a server whose name is `me`, and that takes any number of requests on a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept_all, args=(listener,), daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def accept_all(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            threading.Thread(target=answer_requests, args=(listener.accept()[0],), daemon=True).start()


def answer_requests(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as stream:
        while request := stream.readline():
            while stream.readline().strip():
                pass
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nme")
            if b"HTTP/1.0" in request:
                return


def echo_datagrams(server: socket.socket, number: int) -> None:
    for _ in range(number):
        server.sendto(*server.recvfrom(100))


def answer_once(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", port))
        echo_datagrams(server, 1)
