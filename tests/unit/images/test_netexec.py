"""The program of testbed/netexec, over real sockets of the loopback."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import socket
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from types import ModuleType
from typing import Any

import pytest

from testbed.agent.images import images_dir

PROGRAM = images_dir() / "netexec/files/usr/local/bin/netexec"


@pytest.fixture(scope="module")
def netexec() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("netexec", str(PROGRAM))
    spec = importlib.util.spec_from_loader("netexec", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    was, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = was
    return module


@pytest.fixture
def http(netexec: ModuleType) -> Iterator[int]:
    """The port of a server that answers any number of connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            try:
                while True:
                    threading.Thread(target=netexec.serve_connection, args=listener.accept(), daemon=True).start()
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def udp(netexec: ModuleType) -> int:
    """The port of a server that answers until the tests end."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("", 0))
    threading.Thread(target=netexec.serve_udp, args=(datagrams,), daemon=True).start()
    port: int = datagrams.getsockname()[1]
    return port


def get(port: int, path: str, body: bytes | None = None, **headers: str) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, headers=headers)
    with closing(urllib.request.urlopen(request, timeout=10)) as response:
        answer: bytes = response.read()
    return answer


def dial(asked: int, /, **query: Any) -> dict[str, list[str]]:
    answer: dict[str, list[str]] = json.loads(get(asked, f"/dial?{urllib.parse.urlencode(query)}"))
    return answer


def test_it_tells_its_host_name(http: int) -> None:
    assert get(http, "/hostname").decode() == socket.gethostname()


def test_it_tells_address_and_port_of_the_caller(http: int) -> None:
    with socket.create_connection(("127.0.0.1", http)) as caller:
        caller.sendall(b"GET /clientip HTTP/1.0\r\n\r\n")
        answer = caller.makefile("rb").read()
        assert answer.endswith("{}:{}".format(*caller.getsockname()).encode())


def test_many_requests_go_over_one_connection(http: int) -> None:
    with socket.create_connection(("127.0.0.1", http)) as caller, caller.makefile("rb") as stream:
        for text in ("one", "two"):
            caller.sendall(f"GET /echo?msg={text} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = b"".join(iter(stream.readline, b"\r\n"))
            assert b"200 OK" in head
            assert stream.read(3).decode() == text


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
def test_a_posted_body_comes_back_whole(http: int, size: int) -> None:
    body = b"x" * size
    assert get(http, "/echo", body, **{"Content-Type": "application/octet-stream"}) == body


def test_a_megabyte_in_the_query_comes_back_whole(http: int) -> None:
    assert get(http, f"/echo?msg={'y' * 1_000_000}") == b"y" * 1_000_000


def test_a_chunked_body_is_put_together(http: int) -> None:
    with socket.create_connection(("127.0.0.1", http)) as caller:
        caller.sendall(b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        caller.sendall(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
        assert caller.makefile("rb").read().endswith(b"\r\n\r\nabcde")


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/delay", 400), ("/dial?host=x", 400)])
def test_what_it_cannot_answer_is_refused(http: int, path: str, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(http, path)
    assert refused.value.code == status
    refused.value.close()


def test_udp_answers_the_three_commands(udp: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.settimeout(5)
        caller.connect(("127.0.0.1", udp))
        answers = {}
        for command in ("hostname", "clientip", "echo a b", "echo " + "z" * 60_000):
            caller.send(command.encode())
            answers[command[:8]] = caller.recv(65535).decode()
        assert answers["hostname"] == socket.gethostname()
        assert answers["clientip"] == "{}:{}".format(*caller.getsockname())
        assert answers["echo a b"] == "a b"
        assert answers["echo zzz"] == "z" * 60_000


def test_udp_answers_from_the_address_that_was_asked(udp: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.settimeout(5)
        caller.sendto(b"hostname", ("127.0.0.2", udp))
        assert caller.recvfrom(100)[1] == ("127.0.0.2", udp)


def test_dial_asks_as_often_as_it_is_told(http: int) -> None:
    answer = dial(http, host="127.0.0.1", port=http, tries=3, request="echo?msg=a b")
    assert answer == {"responses": ["a b"] * 3, "errors": []}


def test_dial_speaks_udp(http: int, udp: int) -> None:
    answer = dial(http, host="127.0.0.1", port=udp, protocol="udp", request="echo hello")
    assert answer == {"responses": ["hello"], "errors": []}


def test_dial_tells_what_failed(http: int) -> None:
    closed = _closed_port()
    answer = dial(http, host="127.0.0.1", port=closed, tries=2)
    assert answer["responses"] == []
    assert len(answer["errors"]) == 2


@pytest.mark.parametrize(
    ("target", "said", "code"),
    [("127.0.0.1:{open}", "OK", 0), ("127.0.0.1:{closed}", "REFUSED", 3), ("no.such.host.invalid:1", "DNS", 4)],
)
def test_connect_says_what_became_of_it(http: int, target: str, said: str, code: int) -> None:
    target = target.format(open=http, closed=_closed_port())
    ran = subprocess.run(
        [sys.executable, "-IS", str(PROGRAM), "connect", target, "--timeout=2s"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout.strip(), ran.returncode) == (said, code)


def test_a_shell_tells_what_it_printed_and_how_it_failed(http: int) -> None:
    assert json.loads(get(http, "/shell?cmd=echo%20hello")) == {"output": "hello\n", "error": ""}
    assert json.loads(get(http, "/shell?cmd=exit%203"))["error"] == "exit status 3: "


def test_a_redirect_names_its_place(http: int) -> None:
    with socket.create_connection(("127.0.0.1", http)) as caller:
        caller.sendall(b"GET /redirect?location=/hostname&code=301 HTTP/1.0\r\n\r\n")
        head = caller.makefile("rb").read()
    assert head.startswith(b"HTTP/1.1 301 Redirect\r\nLocation: /hostname\r\n")


@pytest.mark.parametrize(("delay", "asked_to_exit", "code"), [("0", False, 0), ("0.3", False, 0), ("30", True, 7)])
def test_it_ends_when_it_is_told_to(delay: str, asked_to_exit: bool, code: int) -> None:
    port = _closed_port()
    argv = [sys.executable, "-IS", str(PROGRAM), "--http-port", str(port), "--udp-port", "0", "--delay-shutdown", delay]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as program:
        assert program.stderr
        program.stderr.readline()
        program.terminate()
        if delay != "0":
            assert get(port, "/healthz") == b"ok", "it serves on after SIGTERM"
        if asked_to_exit:
            get(port, "/exit?code=7")
        assert program.wait(timeout=10) == code


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5), ("300ms", 0.3), ("1m", 60), ("2", 2)])
def test_a_time_is_written_as_in_go(netexec: ModuleType, text: str, seconds: float) -> None:
    assert netexec.seconds(text) == seconds


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
