import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.api.kinds import CONFIG_MAP, Kind
from testbed.api.objects import Key, Object, labels, name
from testbed.client.fake import FakeClient
from testbed.client.informer import Informer
from testbed.errors import ServiceUnavailable
from testbed.waiting import wait_until_async

NAMES = ("a", "b", "c")


def config_map(name: str, team: str = "red") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"team": team}},
    }


def team(obj: Object | None) -> str:
    return labels(obj or {}).get("team", "")


@asynccontextmanager
async def running(informer: Informer) -> AsyncIterator[Informer]:
    task = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.synced.wait(), 5)
        yield informer
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def caught_up(informer: Informer, client: FakeClient) -> None:
    async def same() -> bool:
        listed = await client.list(CONFIG_MAP)
        everything = {Key("default", name(obj)): obj for obj in listed.items}
        return informer.resource_version == listed.resource_version and dict(informer.items) == everything

    await wait_until_async(same, 5, "the informer holds what the server holds", every_s=0.002)


async def test_it_holds_what_was_there_and_what_comes() -> None:
    client = FakeClient()
    await client.create(config_map("a"))
    async with running(Informer(client, CONFIG_MAP)) as informer:
        assert set(informer.items) == {Key("default", "a")}
        await client.create(config_map("b"))
        await client.delete(CONFIG_MAP, "a", "default")
        await caught_up(informer, client)


async def test_callbacks_are_told_the_key_of_every_change_and_of_the_first_list() -> None:
    client, told = FakeClient(), list[Key]()
    await client.create(config_map("a"))
    informer = Informer(client, CONFIG_MAP)
    informer.on_change(told.append)
    async with running(informer):
        await client.delete(CONFIG_MAP, "a", "default")
        await caught_up(informer, client)
    assert told == [Key("default", "a"), Key("default", "a")]


async def test_observers_are_told_the_object_before_and_after() -> None:
    client = FakeClient()
    teams: list[tuple[str, str]] = []

    def observer(_: Key, old: Object | None, new: Object | None) -> None:
        teams.append((team(old), team(new)))

    informer = Informer(client, CONFIG_MAP)
    informer.observe(observer)
    async with running(informer):
        await client.create(config_map("a"))
        await client.patch(CONFIG_MAP, "a", {"metadata": {"labels": {"team": "blue"}}}, "default")
        await client.delete(CONFIG_MAP, "a", "default")
        await caught_up(informer, client)
    assert teams == [("", "red"), ("red", "blue"), ("blue", "")]


async def test_a_closed_stream_is_taken_up_where_it_ended() -> None:
    client = FakeClient()
    async with running(Informer(client, CONFIG_MAP)) as informer:
        client.disconnect()
        await client.create(config_map("a"))
        await caught_up(informer, client)


async def test_what_vanished_while_history_was_lost_is_told_too() -> None:
    client, told = FakeClient(), list[Key]()
    await client.create(config_map("a"))
    async with running(Informer(client, CONFIG_MAP)) as informer:
        informer.on_change(told.append)
        client.disconnect()
        await client.delete(CONFIG_MAP, "a", "default")
        await client.create(config_map("b"))
        client.forget()
        await caught_up(informer, client)
    assert set(told) == {Key("default", "a"), Key("default", "b")}


async def test_a_server_that_is_away_is_asked_again_until_it_answers() -> None:
    client, failures = FakeClient(), iter(range(3))

    def away(_verb: str, _kind: Kind, _key: Key) -> None:
        if next(failures, None) is not None:
            raise ServiceUnavailable("the server is away")

    client.intercept = away
    async with running(Informer(client, CONFIG_MAP)) as informer:
        assert informer.items == {}


async def test_a_write_is_known_before_the_watch_tells_it_and_told_once() -> None:
    client, told = FakeClient(), list[Key]()
    async with running(Informer(client, CONFIG_MAP)) as informer:
        informer.on_change(told.append)
        informer.learn(await client.create(config_map("a")))
        assert Key("default", "a") in informer.items
        await client.create(config_map("b"))
        await caught_up(informer, client)
    assert told == [Key("default", "a"), Key("default", "b")]


async def test_learning_of_an_object_does_not_bring_it_back_from_deletion() -> None:
    client = FakeClient()
    async with running(Informer(client, CONFIG_MAP)) as informer:
        created = await client.create(config_map("a"))
        await client.delete(CONFIG_MAP, "a", "default")
        await caught_up(informer, client)
        informer.learn(created)
        assert not informer.items


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["put", "learn", "delete"]), st.sampled_from(NAMES), st.sampled_from(["red", "blue"])
        ),
        st.tuples(st.sampled_from(["disconnect", "forget", "yield"]), st.just(""), st.just("")),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_copy_and_index_end_up_equal_to_the_server(steps: list[tuple[str, str, str]]) -> None:
    asyncio.run(_converges(steps))


async def _converges(steps: list[tuple[str, str, str]]) -> None:
    client = FakeClient()
    informer = Informer(client, CONFIG_MAP)
    by_team = informer.index(lambda obj: [team(obj)])
    async with running(informer):
        for verb, which, color in steps:
            await _step(client, informer, verb, config_map(which, color))
        await caught_up(informer, client)
    for color in ("red", "blue"):
        wanted = sorted(key.name for key, obj in informer.items.items() if team(obj) == color)
        assert sorted(name(obj) for obj in by_team[color]) == wanted


async def _step(client: FakeClient, informer: Informer, verb: str, obj: Object) -> None:
    match verb:
        case "disconnect":
            client.disconnect()
        case "forget":
            client.forget()
        case "yield":
            await asyncio.sleep(0)
        case "delete":
            if await _exists(client, name(obj)):
                await client.delete(CONFIG_MAP, name(obj), "default")
        case _:
            written = await (client.update(obj) if await _exists(client, name(obj)) else client.create(obj))
            if verb == "learn":
                informer.learn(written)


async def _exists(client: FakeClient, which: str) -> bool:
    return any(name(obj) == which for obj in (await client.list(CONFIG_MAP)).items)


async def test_a_write_outside_of_its_selection_is_not_its_matter() -> None:
    client = FakeClient()
    async with running(Informer(client, CONFIG_MAP, "default", label_selector="team=blue")) as informer:
        informer.learn(await client.create(config_map("a", "red")))
        informer.learn(await client.create(config_map("b", "blue")))
        assert set(informer.items) == {Key("default", "b")}
