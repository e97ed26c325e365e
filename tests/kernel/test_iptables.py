"""The mode iptables against the kernel: changes, leftovers, edits. Where packets go: test_proxy_modes."""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.iptables import CommandIptables
from testbed.proxy.iptables import IptablesMode
from testbed.proxy.iptables_table import TABLES
from testbed.proxy.virtualport import Endpoint, Ports, VirtualPort
from tests.kernel.lab import Lab
from tests.kernel.random_ports import HERE, histories

NODE = "tb-c-node"


def iptables(lab: Lab) -> CommandIptables:
    return CommandIptables(lab.nft(NODE), lab.place(NODE))


def fresh_mode(lab: Lab, door: CommandIptables | None = None) -> IptablesMode:
    return IptablesMode(door or iptables(lab), lab.nft(NODE), lab.links(NODE))


def saved(lab: Lab) -> list[str]:
    """All rules and chains in no order, without counters."""
    lines = "".join(iptables(lab).save(table) for table in TABLES).splitlines()
    return sorted(re.sub(r"\[\d+:\d+\] ?", "", line) for line in lines if not line.startswith("#"))


def many(count: int, pods: int = 1) -> Ports:
    """So many Services, with so many endpoints each."""
    endpoints = tuple(Endpoint(IPv4Address(f"10.244.2.{2 + at}"), 8080) for at in range(pods))
    return {
        Key("default", f"m{at}"): (
            VirtualPort(
                service=Key("default", f"m{at}"),
                name="http",
                protocol="tcp",
                cluster_ip=IPv4Address("10.96.0.0") + at,
                port=80,
                cluster=endpoints,
                has_endpoints=True,
                serving=frozenset(endpoints),
            ),
        )
        for at in range(count)
    }


@pytest.mark.parametrize("seed", range(5))
def test_changes_lead_where_a_load_would(lab: Lab, seed: int) -> None:
    mode = fresh_mode(lab)
    mode.load({}, HERE)
    for before, after, which in histories(seed, steps=8):
        assert mode.change(before, after, which)
        assert mode.differences(after) == []
    left = saved(lab)
    assert mode.teardown()
    assert lab.nft(NODE).list() == ""
    mode.load(after, HERE)
    assert mode.differences(after) == []
    assert saved(lab) == left


@pytest.mark.parametrize("seed", range(3))
def test_a_load_leads_from_anywhere_to_what_should_be(lab: Lab, seed: int) -> None:
    for at, (_, after, _) in enumerate(histories(seed, steps=4)):
        here = replace(HERE, node_port_addresses=(IPv4Network("198.18.0.0/16"),) if at % 2 else ())
        mode = fresh_mode(lab)
        mode.load(after, here)
        assert mode.differences(after) == []


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("*nat\n-D KUBE-SERVICES -d 10.96.0.1/32 {dispatch}", "+ -t nat -A KUBE-SERVICES -d 10.96.0.1/32 {dispatch}"),
        ("*nat\n-A KUBE-SERVICES -j ACCEPT", "- -t nat -A KUBE-SERVICES -j ACCEPT"),
        ("*nat\n:KUBE-MARK-MASQ - [0:0]", "+ -t nat -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000"),
        ("*nat\n-F PREROUTING", "+ -t nat -A PREROUTING -m comment --comment {portals} -j KUBE-SERVICES"),
        ("*mangle\n-X KUBE-PROXY-CANARY", "+ -t mangle -N KUBE-PROXY-CANARY"),
        ("*nat\n:KUBE-SVC-OLD - [0:0]", "- -t nat -N KUBE-SVC-OLD"),
        (
            "*nat\n-D KUBE-SVC-3F2P6MQUH3XNOY73 2\n-I KUBE-SVC-3F2P6MQUH3XNOY73 1 {to}",
            "+ -t nat -A KUBE-SVC-3F2P6MQUH3XNOY73 {to} (in this order)",
        ),
        ("*nat\n-D KUBE-SERVICES 4\n-I KUBE-SERVICES 1 {last}", "+ -t nat -A KUBE-SERVICES {last} (at the end)"),
    ],
)
def test_an_edit_is_noticed_told_and_undone(lab: Lab, edit: str, said: str) -> None:
    words = {
        "dispatch": '-p tcp -m comment --comment "default/m1:http cluster IP" -m tcp --dport 80 '
        "-j KUBE-SVC-3F2P6MQUH3XNOY73",
        "to": '-m comment --comment "default/m1:http -> 10.244.2.2:8080" -j KUBE-SEP-G5AXUICUUAVMSXYX',
        "portals": '"kubernetes service portals"',
        "last": '! -d 127.0.0.0/8 -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule '
        'in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS',
    }
    mode = fresh_mode(lab)
    mode.load(many(3), HERE)
    assert not mode.was_edited()
    iptables(lab).restore(f"{edit.format(**words)}\nCOMMIT\n")
    assert mode.was_edited()
    assert said.format(**words) in mode.differences(many(3))
    mode.load(many(3), HERE)
    assert mode.differences(many(3)) == []
    assert not mode.was_edited()


def test_the_loads_and_changes_of_the_mode_are_not_edits_to_who_shares_its_handle(lab: Lab) -> None:
    nft = lab.nft(NODE)
    mode = IptablesMode(CommandIptables(nft, lab.place(NODE)), nft, lab.links(NODE))
    mode.load(many(3), HERE)
    assert mode.change(many(3), many(2), [Key("default", "m2")])
    assert not nft.was_edited()
    nft.load("add table ip testbed-masquerade")
    assert not mode.was_edited()


def test_what_a_killed_predecessor_or_a_real_kube_proxy_left_is_replaced_and_removed(lab: Lab) -> None:
    door = iptables(lab)
    door.restore(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]\n:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]\n"
        "-A KUBE-SERVICES -d 10.96.0.0/32 -p tcp -j KUBE-SVC-AAAAAAAAAAAAAAAA\n"
        "-A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-SEP-AAAAAAAAAAAAAAAA\n"
        "-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -j DNAT --to-destination 10.244.9.9:80\n"
        '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES\n'
        "-A OUTPUT -p tcp -j KUBE-SERVICES\nCOMMIT\n"
        "*filter\n:KUBE-NODEPORTS - [0:0]\n:MINE - [0:0]\n-A INPUT -j KUBE-NODEPORTS\n-A INPUT -j MINE\nCOMMIT\n"
    )
    mode = fresh_mode(lab)
    mode.load(many(1), HERE)
    assert mode.differences(many(1)) == []
    assert mode.teardown()
    assert [line for line in saved(lab) if "KUBE" in line] == []
    assert "-A INPUT -j MINE" in saved(lab)
    assert "table ip nat" not in lab.nft(NODE).list("tables")


class CrampedIptables(CommandIptables):
    """Refuses large transactions, as the kernel does to a plain user with a small socket buffer."""

    def restore(self, script: str) -> None:
        if script.count("\n") > 50:
            raise KernelError("iptables-restore: Message too long", errno.EMSGSIZE)
        super().restore(script)


def test_rules_too_large_for_one_transaction_are_loaded_in_several(lab: Lab) -> None:
    mode = fresh_mode(lab, CrampedIptables(lab.nft(NODE), lab.place(NODE)))
    mode.load(many(100), HERE)
    assert mode.differences(many(100)) == []


def test_chains_lose_their_comments_in_a_large_cluster(lab: Lab) -> None:
    mode = fresh_mode(lab)
    few, more = many(2), many(5, pods=240)
    mode.load(few, HERE)
    assert '"default/m0:http -> 10.244.2.2:8080"' in iptables(lab).save("nat")
    assert not mode.change(few, more, list(more))
    mode.load(more, HERE)
    assert '"default/m0:http -> 10.244.2.2:8080"' not in iptables(lab).save("nat")
    assert mode.differences(more) == []


def test_an_address_that_the_node_gets_for_node_ports_counts_as_an_edit(lab: Lab) -> None:
    mode = fresh_mode(lab)
    here = replace(HERE, node_port_addresses=(IPv4Network("192.0.2.0/24"),))
    mode.load({}, here)
    assert not mode.was_edited()
    lab.links(NODE).set_addresses("lo", [IPv4Interface("127.0.0.1/8"), IPv4Interface("192.0.2.2/32")])
    assert mode.was_edited()
    mode.load({}, here)
    assert "-d 192.0.2.2/32" in iptables(lab).save("nat")
    assert mode.differences({}) == []


def test_where_nobody_has_used_iptables_nobody_begins(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert iptables(lab).save("nat") == ""
    assert fresh_mode(lab).teardown()


def test_a_refusal_names_the_line_and_loads_nothing(lab: Lab) -> None:
    with pytest.raises(KernelError, match="-A MINE --nobody"):
        iptables(lab).restore("*nat\n:MINE - [0:0]\n-A MINE --nobody\n-A MINE -j ACCEPT\nCOMMIT\n")
    assert "MINE" not in iptables(lab).save("nat")


@pytest.fixture
def legacy(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The lab, where iptables-restore and iptables-save are those of the legacy variant."""
    if not (program := shutil.which("xtables-legacy-multi")):
        pytest.skip("there is no xtables-legacy-multi")
    for name in ("iptables-restore", "iptables-save"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(program)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    try:
        iptables(lab).restore("*nat\nCOMMIT\n")
    except KernelError as error:
        pytest.skip(f"the kernel has no legacy iptables ({error})")
    return lab


def test_the_legacy_variant_serves_and_changes_and_notices_edits_too(legacy: Lab) -> None:
    door = iptables(legacy)
    mode = fresh_mode(legacy, door)
    mode.load(many(3), HERE)
    assert mode.change(many(3), many(2), [Key("default", "m2")])
    assert mode.differences(many(2)) == []
    assert not mode.was_edited()
    iptables(legacy).restore("*nat\n-F PREROUTING\nCOMMIT\n")
    assert mode.was_edited()
    assert not mode.was_edited()
    assert mode.teardown()
    assert [line for line in saved(legacy) if "KUBE" in line] == []
