"""The syntax of names, labels and annotations (apimachinery `pkg/util/validation`, RFC 1123 and RFC 1035)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.apiserver.refusals import Cause, forbidden_field, invalid, required, too_long

ANNOTATIONS_LIMIT = 256 << 10
"""Bytes of all annotations of an object together."""


@dataclass(frozen=True)
class Syntax:
    """A form of names: pattern, longest length, and the sentence that Kubernetes says of it."""

    pattern: re.Pattern[str]
    limit: int
    detail: str

    def mistake(self, value: str) -> str:
        """What is wrong with the value, or an empty string."""
        if len(value) > self.limit:
            return f"must be no more than {self.limit} characters"
        return "" if self.pattern.fullmatch(value) else self.detail


def _syntax(pattern: str, limit: int, rule: str, example: str) -> Syntax:
    return Syntax(re.compile(pattern), limit, f"{rule} (e.g. {example}, regex used for validation is '{pattern}')")


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"

DNS_LABEL = _syntax(
    _LABEL, 63,
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character", "'my-name',  or '123-abc'",
)  # fmt: skip
DNS_SUBDOMAIN = _syntax(
    rf"{_LABEL}(\.{_LABEL})*", 253,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character", "'example.com'",
)  # fmt: skip
DNS_1035_LABEL = _syntax(
    r"[a-z]([-a-z0-9]*[a-z0-9])?", 63,
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character", "'my-name',  or 'abc-123'",
)  # fmt: skip
QUALIFIED_NAME = _syntax(
    _QUALIFIED, 63,
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character", "'MyName',  or 'my.name',  or '123-abc'",
)  # fmt: skip
LABEL_VALUE = _syntax(
    rf"(({_QUALIFIED}))?", 63,
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character", "'MyValue',  or 'my_value',  or '12345'",
)  # fmt: skip
CONFIG_KEY = _syntax(
    r"[-._a-zA-Z0-9]+", 253, "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    "'key.name',  or 'KEY_NAME',  or 'key-name'",
)  # fmt: skip
ENV_NAME = _syntax(
    r"[ -<>-~]+", 4096, "a valid environment variable name must consist only of printable ASCII characters other than "
    "'='", "'MY_ENV.VAR-NAME'",
)  # fmt: skip
PORT_NAME = _syntax(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", 15,
    "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)", "'http',  or 'web-2'",
)  # fmt: skip
PERCENT = _syntax(
    "[0-9]+%", 6, "a valid percent string must be a numeric string followed by an ending '%'", "'1%',  or '93%'"
)


def checked(syntax: Syntax, value: str, field: str) -> Iterator[Cause]:
    """A cause where the value is not of that form."""
    if mistake := syntax.mistake(value):
        yield invalid(field, value, mistake)


def port_name(value: str, field: str) -> Iterator[Cause]:
    """An IANA service name (RFC 6335): a letter at least, and no two hyphens together."""
    mistake = PORT_NAME.mistake(value)
    if not mistake and not re.search("[a-z]", value):
        mistake = "must contain at least one letter (a-z)"
    elif not mistake and "--" in value:
        mistake = "must not contain consecutive hyphens"
    if mistake:
        yield invalid(field, value, mistake)


def qualified_name(value: str, field: str) -> Iterator[Cause]:
    """`name` or `prefix.example.com/name`: the keys of labels and annotations, finalizers, taints."""
    prefix, slash, name = value.rpartition("/")
    mistake = QUALIFIED_NAME.mistake(name)
    if not mistake and slash:
        mistake = DNS_SUBDOMAIN.mistake(prefix) and f"prefix part {DNS_SUBDOMAIN.mistake(prefix)}"
    if mistake:
        yield invalid(field, value, mistake)


def check_labels(values: Mapping[str, str], field: str) -> Iterator[Cause]:
    """Keys are qualified names, values at most 63 plain characters."""
    for key, value in values.items():
        yield from qualified_name(key, field)
        yield from checked(LABEL_VALUE, value, field)


def check_annotations(values: Mapping[str, str], field: str) -> Iterator[Cause]:
    """Keys are qualified names in any case, the total is limited."""
    for key in values:
        yield from qualified_name(key.lower(), field)
    if sum(len(key.encode()) + len(value.encode()) for key, value in values.items()) > ANNOTATIONS_LIMIT:
        yield too_long(field, ANNOTATIONS_LIMIT)


def label_selector(selector: Mapping[str, Any], field: str) -> Iterator[Cause]:
    """A metav1.LabelSelector whose expressions are complete."""
    yield from check_labels(selector.get("matchLabels", {}), f"{field}.matchLabels")
    yield from expressions(selector.get("matchExpressions", []), f"{field}.matchExpressions")


def expressions(listed: Sequence[Mapping[str, Any]], field: str) -> Iterator[Cause]:
    """The expressions of a selector, each complete."""
    for index, expression in enumerate(listed):
        yield from _expression(expression, f"{field}[{index}]")


def _expression(expression: Mapping[str, Any], field: str) -> Iterator[Cause]:
    yield from qualified_name(expression.get("key", ""), f"{field}.key")
    operator, values = expression.get("operator", ""), expression.get("values", [])
    if operator not in {"In", "NotIn", "Exists", "DoesNotExist"}:
        yield invalid(f"{field}.operator", operator, "not a valid selector operator")
    elif operator in {"In", "NotIn"} and not values:
        yield required(f"{field}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in {"Exists", "DoesNotExist"} and values:
        yield forbidden_field(f"{field}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
