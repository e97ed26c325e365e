from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.errors import BadInput, MachineLacks
from testbed.runtime.choose import choose, engine_silence, find


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with no cluster of anybody and no engine."""
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    return tmp_path


@pytest.fixture
def engine(elsewhere: Path) -> Iterator[list[bytes]]:
    """Something that listens at the engine's socket and gives each caller the next of the answers."""
    answers: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(elsewhere / "docker.sock"))
        listener.listen()

        def serve() -> None:
            while answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(answers.pop(0))

        thread = threading.Thread(target=serve)
        answers.append(b"HTTP/1.0 200 OK\r\n\r\nOK")
        thread.start()
        yield answers
        thread.join(5)


def test_a_socket_that_is_not_there_is_why_no_engine_answers(elsewhere: Path) -> None:
    assert engine_silence() == f"there is no {elsewhere}/docker.sock"


def test_an_engine_that_answers_its_ping_can_be_used(engine: list[bytes]) -> None:
    assert engine_silence() == ""


def test_an_engine_that_answers_something_else_cannot(engine: list[bytes]) -> None:
    engine[0] = b"HTTP/1.0 403 Forbidden\r\n\r\n"
    assert "403 Forbidden" in engine_silence()


@pytest.mark.usefixtures("elsewhere")
def test_auto_means_namespaces_where_no_engine_answers_and_says_so() -> None:
    choice = choose("auto", "nobody")
    assert choice.runtime.name == "netns"
    assert choice.why.startswith("no Docker engine answers: there is no ")


@pytest.mark.usefixtures("elsewhere")
def test_docker_is_not_replaced_by_something_else() -> None:
    with pytest.raises(MachineLacks, match="no Docker engine answers"):
        choose("docker", "nobody")


@pytest.mark.usefixtures("elsewhere")
def test_a_cluster_that_nobody_has_is_bad_input() -> None:
    with pytest.raises(BadInput, match="there is no cluster nobody"):
        find("nobody")
