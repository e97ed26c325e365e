"""The controller of the cluster's DNS, without a knotd."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from testbed.api.kinds import POD, Kind
from testbed.api.objects import Key
from testbed.client.fake import FakeClient
from testbed.dns.controller import Controller
from testbed.dns.knot import Knot

SOON_S = 5.0


async def test_it_ends_with_an_informer_that_dies_instead_of_serving_old_news(tmp_path: Path) -> None:
    def intercept(verb: str, kind: Kind, _: Key) -> None:
        if (verb, kind) == ("list", POD):
            raise ValueError("what nobody has foreseen")

    client = FakeClient()
    client.intercept = intercept
    controller = Controller(client, Knot(tmp_path / "none", "cluster.local"), "cluster.local", "10.96.0.10")
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(controller.run(), SOON_S)
