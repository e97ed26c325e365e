"""Messages between the anchor and its clients."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.agent.anchor_wire import Inbox, encode

MESSAGES: list[dict[str, Any]] = [{"op": "list"}, {"ok": [1, "ä", None]}, {}]


@given(st.integers(1, 60))
def test_messages_arrive_whole_however_they_are_cut(size: int) -> None:
    data = b"".join(encode(message) for message in MESSAGES)
    inbox = Inbox()
    found = [message for start in range(0, len(data), size) for message in inbox.feed(data[start : start + size])]
    assert found == MESSAGES


@pytest.mark.parametrize("nonsense", [b"\0\0\0\2[]", b"\0\0\0\1x"])
def test_what_is_no_message_is_refused(nonsense: bytes) -> None:
    with pytest.raises(ValueError, match=r"message|Expecting"):
        Inbox().feed(nonsense)
