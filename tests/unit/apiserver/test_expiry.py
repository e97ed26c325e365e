from datetime import UTC, datetime, timedelta
from pathlib import Path

from testbed.api.kinds import EVENT
from testbed.api.objects import Object, name
from testbed.apiserver.expiry import EventExpiry
from tests.unit.apiserver.parts import opened


def event(name: str, **times: str) -> Object:
    meta = {"name": name, "namespace": "default"}
    involved = {"kind": "Pod", "name": "web", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Event", "metadata": meta, "involvedObject": involved, **times}


async def test_events_go_an_hour_after_they_were_last_seen(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    old, recent = (f"{now - timedelta(minutes=m):%Y-%m-%dT%H:%M:%SZ}" for m in (61, 59))
    async with opened(tmp_path) as resources:
        for obj in (
            event("once", firstTimestamp=old),
            event("again", firstTimestamp=old, lastTimestamp=recent),
            event("untimed"),
        ):
            await resources.create(EVENT, "default", obj)
        expiry = EventExpiry(resources)
        expiry.sweep(now)
        assert {name(record.document) for record in resources.list(EVENT).records} == {"again", "untimed"}
        expiry.sweep(now + timedelta(minutes=61))
        assert not resources.list(EVENT).records
