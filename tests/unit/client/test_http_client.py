"""What only the client over HTTP can meet: a server that is not there, not ours, or not willing."""

from contextlib import aclosing
from pathlib import Path

import pytest

from testbed.api.kinds import CONFIG_MAP, NODE
from testbed.client.http import HttpClient
from testbed.errors import ServerTimeout, ServiceUnavailable, Unauthorized
from tests.unit.client.clients import http, https


async def test_a_server_that_is_not_there_is_unavailable_and_named(tmp_path: Path) -> None:
    async with HttpClient(f"unix://{tmp_path}/none.sock", "secret") as client:
        with pytest.raises(ServiceUnavailable, match=r"none\.sock cannot be reached .* is the cluster up\?"):
            await client.list(NODE)
        with pytest.raises(ServiceUnavailable):
            await anext(client.watch(NODE, since=1))


async def test_a_wrong_token_is_refused() -> None:
    async with http() as trusted:
        assert isinstance(trusted, HttpClient)
        async with HttpClient(trusted.url, "wrong") as client:
            with pytest.raises(Unauthorized):
                await client.list(NODE)
            with pytest.raises(Unauthorized):
                await anext(client.watch(NODE, since=1))


async def test_a_certificate_of_another_authority_is_refused() -> None:
    async with https() as trusted:
        assert isinstance(trusted, HttpClient)
        async with HttpClient(trusted.url, "secret") as client:
            with pytest.raises(ServiceUnavailable, match="certificate verify failed"):
                await client.list(NODE)


async def test_an_error_in_a_watch_is_raised_as_what_it_says() -> None:
    async with http() as client:
        events = client.watch(CONFIG_MAP, since=1_000_000)
        async with aclosing(events) as following:  # type: ignore[type-var]
            with pytest.raises(ServerTimeout, match="Too large resource version"):
                await anext(following)
