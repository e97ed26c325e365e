"""Where a response ends."""

import pytest

from testbed.loadgen.http import BadResponse, end_of, framing, parse_head, request

OK = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
TRAILERS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n"


@pytest.mark.parametrize("response", [OK, CHUNKED, TRAILERS, EMPTY])
def test_a_response_ends_at_its_last_byte_and_not_before(response: bytes) -> None:
    for length in range(len(response)):
        head = parse_head(response[:length])
        assert head is None or end_of(head, response[:length]) is None, response[:length]
    head = parse_head(response)
    assert head
    assert end_of(head, response + b"the next") == len(response)


def test_a_response_without_a_length_ends_with_the_connection() -> None:
    response = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"
    head = parse_head(response)
    assert head
    assert head.closes
    assert head.length is None
    assert end_of(head, response) is None


def test_http_1_0_closes() -> None:
    head = parse_head(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert head
    assert head.closes


def test_what_is_no_http_is_refused() -> None:
    with pytest.raises(BadResponse, match=r"SSH-2\.0"):
        parse_head(b"SSH-2.0-OpenSSH\r\n\r\n")


def test_a_response_like_the_last_one_is_recognised_whatever_its_other_headers_say() -> None:
    head = parse_head(OK)
    assert head
    expected = framing(head, OK)
    assert expected
    assert expected.fits(OK.replace(b"Server: x", b"Server: y"))


@pytest.mark.parametrize(
    "other",
    [
        OK[:-1],
        OK + b"d",
        OK.replace(b"200 OK", b"404 NO"),
        OK.replace(b"Length: 3", b"Length: 4"),
        OK.replace(b"Content-Length", b"Content-Lengte"),
    ],
)
def test_a_response_of_another_size_status_or_length_is_not_taken_for_the_same(other: bytes) -> None:
    head = parse_head(OK)
    assert head
    expected = framing(head, OK)
    assert expected
    assert not expected.fits(other)


def test_no_shortcut_for_responses_that_only_parsing_can_delimit() -> None:
    for response in (CHUNKED, EMPTY, OK.replace(b"200", b"500")):
        head = parse_head(response)
        assert head
        assert framing(head, response) is None


def test_a_request_carries_host_headers_and_the_length_of_its_body() -> None:
    assert request("POST", "/x", "h:1", {"A": "b"}, b"xyz") == (
        b"POST /x HTTP/1.1\r\nHost: h:1\r\nA: b\r\nContent-Length: 3\r\n\r\nxyz"
    )
