"""The selectors of a request as one predicate."""

from __future__ import annotations

import re

from testbed.api.kinds import Kind
from testbed.api.selectors import field_selector, label_selector
from testbed.apiserver.admission.rules import RULES
from testbed.apiserver.history import Selects
from testbed.errors import BadRequest

COMMON_FIELDS = ("metadata.name", "metadata.namespace")


def selection(kind: Kind, labels: str = "", fields: str = "") -> Selects | None:
    """None where every object is meant. BadRequest for a selector that cannot be parsed, or a field not served."""
    parts = []
    if labels:
        parts.append(label_selector(labels))
    if fields:
        _require_served(kind, fields)
        parts.append(field_selector(fields))
    if len(parts) == 2:
        by_label, by_field = parts
        return lambda obj: by_label(obj) and by_field(obj)
    return parts[0] if parts else None


def _require_served(kind: Kind, fields: str) -> None:
    served = (*COMMON_FIELDS, *RULES[kind].fields)
    for part in filter(None, fields.split(",")):
        if (path := re.split("!?=", part, maxsplit=1)[0]) not in served:
            raise BadRequest(
                f'Unable to find "{kind.api_version}, Resource={kind.plural}" that match field selector "{fields}": '
                f"field label not supported: {path}"
            )
