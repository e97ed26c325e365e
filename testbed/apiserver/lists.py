"""Lists on the wire: whole, or in pages that together show one moment."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from testbed.api.kinds import Kind
from testbed.api.objects import Key, key
from testbed.apiserver.exchange import Request, Response
from testbed.apiserver.records import Record
from testbed.apiserver.refusals import Cause, forbidden_field, unsupported
from testbed.apiserver.resources import Page, Resources
from testbed.apiserver.routes import Target
from testbed.apiserver.selection import selection
from testbed.errors import BadRequest, Invalid

MATCHES = ("Exact", "NotOlderThan")


@dataclass(frozen=True)
class Continuation:
    """Where the next page of a list begins: at which version, after which object."""

    version: int
    after: Key

    def token(self) -> str:
        """Opaque to clients."""
        return base64.urlsafe_b64encode(orjson.dumps([self.version, *self.after])).decode()

    @classmethod
    def parse(cls, token: str) -> Continuation:
        """What `token` wrote. BadRequest."""
        try:
            version, namespace, name = orjson.loads(base64.urlsafe_b64decode(token.encode()))
            return cls(int(version), Key(str(namespace), str(name)))
        except (ValueError, TypeError, binascii.Error) as error:
            raise BadRequest(f"continue key is not valid: {error}") from error


def list_response(resources: Resources, target: Target, request: Request) -> Response:
    """The answer to a list: `limit` objects of it where a limit is given, and a token for the rest."""
    query = request.query
    selects = selection(target.kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))
    limit = request.number("limit") or 0
    if token := query.get("continue"):
        begin = Continuation.parse(token)
        page = resources.list(target.kind, target.namespace, selects, begin.version)
        records = [record for record in page.records if key(record.document) > begin.after]
    else:
        page = resources.list(target.kind, target.namespace, selects, asked_version(resources, request))
        records = list(page.records)
    shown = records[:limit] if limit else records
    meta: dict[str, object] = {"resourceVersion": str(page.version)}
    if len(shown) < len(records):
        meta["continue"] = Continuation(page.version, key(shown[-1].document)).token()
        if selects is None:
            meta["remainingItemCount"] = len(records) - len(shown)
    return Response(encoded(target.kind, shown, meta))


def whole(kind: Kind, page: Page) -> Response:
    """A page as a list object."""
    return Response(encoded(kind, page.records, {"resourceVersion": str(page.version)}))


def encoded(kind: Kind, records: Iterable[Record], meta: dict[str, object]) -> bytes:
    """A list object, put together from the objects' own JSON."""
    items = b",".join([record.raw for record in records])
    head = orjson.dumps({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta})
    return b'%s,"items":[%s]}' % (head[:-1], items)


def asked_version(resources: Resources, request: Request) -> int:
    """The one version at which the list is wanted; 0 for the newest. ServerTimeout for a version yet to come."""
    version, match = request.number("resourceVersion") or 0, request.query.get("resourceVersionMatch", "")
    if match and match not in MATCHES:
        raise bad_options(unsupported("resourceVersionMatch", match, MATCHES))
    if match and "resourceVersion" not in request.query:
        raise bad_options(
            forbidden_field(
                "resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"
            )
        )
    if match == "Exact" and not version:
        raise bad_options(
            forbidden_field("resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
        )
    resources.store.require_reached(version)
    return version if match == "Exact" else 0


def bad_options(*causes: Cause) -> Invalid:
    """The refusal of list options that contradict each other."""
    said = ", ".join(map(str, causes))
    return Invalid(
        f'ListOptions.meta.k8s.io "" is invalid: {said}',
        details={"group": "meta.k8s.io", "kind": "ListOptions", "causes": [cause.wire() for cause in causes]},
    )
