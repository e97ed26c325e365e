"""The one way to the API. Controllers, agents, daemons, the command line and tests see only this."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from testbed.api.kinds import Kind
from testbed.api.objects import Event, Object, ObjectList


class Client(Protocol):
    """Kubernetes' verbs. Every method raises a subclass of `testbed.errors.ApiError` where the server refuses.

    Objects are plain JSON documents and belong to the caller: a client never hands out one that it keeps.
    """

    async def create(self, obj: Object) -> Object:
        """The stored object. AlreadyExists, Invalid."""
        ...

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        """NotFound where there is none."""
        ...

    async def list(
        self, kind: Kind, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> ObjectList:
        """All of a kind, in one namespace or (empty) in all of them."""
        ...

    async def update(self, obj: Object, *, subresource: str = "") -> Object:
        """Replace. Conflict if `metadata.resourceVersion` is given and is no longer the newest."""
        ...

    async def patch(
        self, kind: Kind, name: str, patch: Mapping[str, Any], namespace: str = "", *, subresource: str = ""
    ) -> Object:
        """JSON merge patch (RFC 7396)."""
        ...

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        grace_period_s: int | None = None,
        propagation: str = "Background",
        uid: str = "",
    ) -> None:
        """Ask for deletion: a Pod bound to a node goes when its agent says so (grace 0: at once), others at once.

        With `uid`, only that very object: Conflict where the name now belongs to another.
        """
        ...

    def watch(
        self, kind: Kind, namespace: str = "", *, since: int, label_selector: str = "", field_selector: str = ""
    ) -> AsyncIterator[Event]:
        """Every change after version `since`. Gone where that is no longer held: list again.

        Ends without an error when the server closes the stream; the caller watches again from the last version seen.
        """
        ...
