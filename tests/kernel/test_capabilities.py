"""What the kernel is asked, it answers truly."""

from __future__ import annotations

import pytest

from testbed.kernel.capabilities import XTABLES, missing_extensions
from testbed.runtime.capabilities import probed
from tests.kernel.lab import Lab

pytestmark = pytest.mark.usefixtures("lab")  # which skips where there can be no namespaces


def test_what_is_named_is_probed_and_nothing_else() -> None:
    assert probed(["nftables", "link veth"]) == {"nftables": "", "link veth": ""}


def test_everything_has_a_reason_or_works() -> None:
    reasons = probed()
    assert {"nftables", "iptables", "iptables-restore", "ipvs", "overlay", "link veth"} <= reasons.keys()
    assert not any("Traceback" in reason for reason in reasons.values())


def test_extensions_of_iptables_are_known_by_name_kind_and_revision(lab: Lab) -> None:
    wanted = {"match": {"comment": 0, "nonesuch": 0, "recent": 200}, "target": {"DNAT": 2, "comment": 0}}
    missing = lab.inside("tb-b-a", lambda: missing_extensions(wanted))
    assert missing == ["match nonesuch", "match recent", "target comment"]


def test_where_the_program_works_the_kernel_has_its_extensions(lab: Lab) -> None:
    if not probed(["iptables-restore"])["iptables-restore"]:
        assert lab.inside("tb-b-a", lambda: missing_extensions(XTABLES)) == []
