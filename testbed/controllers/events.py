"""Events: what `kubectl describe` and `kubectl get events` tell about an object."""

from __future__ import annotations

import itertools
import logging
import time

from testbed.api.objects import Object, metadata, name, namespace, now
from testbed.client.protocol import Client
from testbed.errors import ApiError

log = logging.getLogger(__name__)


class Recorder:
    """Writes Events in the name of one component."""

    def __init__(self, client: Client, component: str) -> None:
        self._client, self._component = client, component
        self._numbers = itertools.count(time.time_ns())

    async def normal(self, about: Object, reason: str, message: str) -> None:
        """Something happened as it should."""
        await self._record("Normal", about, reason, message)

    async def warning(self, about: Object, reason: str, message: str) -> None:
        """Something is not as it should be."""
        await self._record("Warning", about, reason, message)

    async def _record(self, kind: str, about: Object, reason: str, message: str) -> None:
        try:
            await self._client.create(self._event(kind, about, reason, message))
        except ApiError as error:  # an Event is a courtesy: its loss must not repeat the work that it tells of
            log.info("event %s about %s is lost: %s", reason, name(about), error)

    def _event(self, kind: str, about: Object, reason: str, message: str) -> Object:
        moment = now()
        space = namespace(about) or "default"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name(about)}.{next(self._numbers):x}", "namespace": space},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": namespace(about),
                "name": name(about),
                "uid": metadata(about).get("uid", ""),
                "resourceVersion": metadata(about).get("resourceVersion", ""),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
