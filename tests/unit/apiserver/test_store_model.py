"""The store against a model: whatever happens, and however often it is opened, the past adds up to the present."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.api.kinds import CONFIG_MAP
from testbed.api.objects import Key, key
from testbed.apiserver.records import DELETED
from testbed.apiserver.store import Store
from testbed.errors import Gone
from tests.unit.apiserver.parts import config_map

State = dict[Key, str]
WINDOW = 6
NAMES = ("a", "b", "c")
STEPS = st.lists(st.sampled_from([*NAMES, "settle", "reopen"]), max_size=100)


def state_of(store: Store) -> State:
    return {key(record.document): record.document["data"]["step"] for record in store.list(CONFIG_MAP)}


def write(store: Store, which: Key, step: int) -> None:
    """Create what is missing; of what is there, delete every third and change the others."""
    record = store.get(CONFIG_MAP, which)
    if record is None:
        store.create(CONFIG_MAP, config_map(which.name, step=str(step)))
    elif step % 3 == 0:
        store.delete(CONFIG_MAP, which)
    else:
        store.update(CONFIG_MAP, {**record.copy(), "data": {"step": str(step)}})


async def brought_forward(store: Store, state: State, since: int) -> State:
    """A former state, with everything that a watch has told since."""
    now = dict(state)
    if since < store.version:
        for event, record in await store.watch(CONFIG_MAP, since).next():
            now[key(record.document)] = record.document["data"]["step"]
            if event == DELETED:
                del now[key(record.document)]
    return now


async def lived(path: Path, steps: list[str]) -> None:
    store = Store.open(path, window=WINDOW)
    past: dict[int, State] = {store.version: {}}
    for number, step in enumerate(steps):
        if step == "reopen":
            store.close()
            store = Store.open(path, window=WINDOW)
        elif step == "settle":
            store.settle()
        else:
            write(store, Key("default", step), number)
            past[store.version] = state_of(store)
    store.settle()
    held = 0
    for version, state in past.items():
        try:
            assert await brought_forward(store, state, version) == state_of(store)
            then = store.list_at(CONFIG_MAP, version)
        except Gone:
            continue
        held += 1
        assert {key(record.document): record.document["data"]["step"] for record in then} == state
    assert held >= min(len(past), WINDOW)
    store.close()


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_every_former_state_that_is_still_held_leads_to_the_present(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(lived(Path(directory) / "store.db", steps))
