"""Which objects a workload controls: it adopts what its selector selects and nobody owns, and releases what it no
longer selects (Kubernetes' ControllerRefManager)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from testbed.api.kinds import kind_of
from testbed.api.objects import (
    Object,
    controller_of,
    is_deleting,
    metadata,
    name,
    namespace,
    owner_reference,
    spec,
    uid,
)
from testbed.api.selectors import structured_selector
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.controllers.loop import together
from testbed.errors import NotFound


async def claim(client: Client, informer: Informer, owner: Object, candidates: Iterable[Object]) -> list[Object]:
    """The candidates that `owner` controls, once each, after adopting and releasing where that was due."""
    selects = structured_selector(spec(owner).get("selector") or {})
    claimed: list[Object] = []
    changes: list[tuple[Object, list[dict[str, Any]]]] = []
    for obj in {uid(obj): obj for obj in candidates}.values():
        controller = controller_of(obj)
        references = metadata(obj).get("ownerReferences") or []
        if controller.get("uid") == uid(owner):
            if selects(obj):
                claimed.append(obj)
            elif not is_deleting(owner):
                changes.append((obj, [ref for ref in references if ref["uid"] != uid(owner)]))
        elif not controller and selects(obj) and not is_deleting(obj) and not is_deleting(owner):
            changes.append((obj, [*references, owner_reference(owner)]))
    changed = await together(*(_write(client, informer, obj, references) for obj, references in changes))
    adopted = [obj for obj in changed if obj is not None and controller_of(obj).get("uid") == uid(owner)]
    return claimed + adopted


async def _write(client: Client, informer: Informer, obj: Object, references: list[dict[str, Any]]) -> Object | None:
    meta = {
        "uid": uid(obj),
        "resourceVersion": metadata(obj)["resourceVersion"],
        "ownerReferences": references or None,
    }
    try:
        written = await client.patch(kind_of(obj), name(obj), {"metadata": meta}, namespace(obj))
    except NotFound:
        return None
    informer.learn(written)
    return written
