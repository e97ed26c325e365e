"""The mode nftables-kubeproxy against the kernel: changes, leftovers, edits. Where packets go: test_proxy_modes."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest

from testbed.errors import KernelError
from testbed.kernel.nft import LibNft
from testbed.proxy.kubeproxy import KubeProxyMode
from tests.kernel.lab import Lab
from tests.kernel.random_ports import HERE, histories

NODE = "tb-c-node"


def fresh_mode(lab: Lab, nft: LibNft | None = None) -> KubeProxyMode:
    return KubeProxyMode(nft or lab.nft(NODE), lab.links(NODE))


def listed(lab: Lab, table: str = "kube-proxy") -> list[str]:
    """The table's lines in no order: nft lists chains in the order in which they were made."""
    text = lab.nft(NODE).list(f"table ip {table}")
    elements = re.sub(r",\s+", ",\n", text.replace("elements = { ", "\n").replace(" }", "\n"))
    return sorted(line.strip() for line in elements.replace("kube-proxy-next", "kube-proxy").splitlines())


@pytest.mark.parametrize("seed", range(5))
def test_changes_lead_where_a_load_would(lab: Lab, seed: int) -> None:
    changed, loaded = fresh_mode(lab), fresh_mode(lab)
    changed.load({}, HERE)
    for before, after, which in histories(seed, steps=12):
        assert changed.change(before, after, which)
        assert changed.differences(after) == []
    left = listed(lab)
    loaded.load(after, HERE)
    assert loaded.differences(after) == []
    assert listed(lab, "kube-proxy-next") == left
    assert listed(lab) == []


def test_chains_that_the_kernel_holds_busy_go_with_the_next_change(lab: Lab) -> None:
    class BusyNft(LibNft):
        """Refuses to delete chains in the transaction that leaves them, as Linux does before 6.2."""

        is_busy = True

        def load(self, script: str) -> None:
            if self.is_busy and "delete chain" in script:
                raise KernelError("nft: Device or resource busy", errno.EBUSY)
            super().load(script)

    nft = BusyNft(lab.place(NODE))
    mode = fresh_mode(lab, nft)
    mode.load({}, HERE)
    (_, served, which), *_ = histories(3, steps=1)
    assert mode.change({}, served, which)
    assert mode.change(served, {}, which)
    assert mode.differences({}) != []
    assert mode.change({}, {}, [])
    nft.is_busy = False
    assert mode.change({}, {}, [])
    assert mode.differences({}) == []
    nft.close()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("delete element ip kube-proxy cluster-ips { 10.96.0.99 }", "+ element cluster-ips { 10.96.0.99 }"),
        ("add chain ip kube-proxy mine", "- chain mine {  }"),
        ("flush chain ip kube-proxy masquerading", "- chain masquerading {  }"),
        ("flush ruleset", "+ element cluster-ips { 10.96.0.99 }"),
    ],
)
def test_an_edit_is_noticed_told_and_undone(lab: Lab, edit: str, said: str) -> None:
    (_, served, _), *_ = histories(1, steps=1)
    mode = fresh_mode(lab)
    mode.load(served, HERE)
    address = next(iter(served.values()))[0].cluster_ip
    assert not mode.was_edited()
    lab.nft(NODE).load(edit.replace("10.96.0.99", str(address)))
    assert mode.was_edited()
    assert said.replace("10.96.0.99", str(address)) in mode.differences(served)
    mode.load(served, HERE)
    assert mode.differences(served) == []


def test_an_address_that_the_node_gets_for_node_ports_counts_as_an_edit(lab: Lab) -> None:
    links = lab.links(NODE)
    mode = fresh_mode(lab)
    here = replace(HERE, node_port_addresses=(IPv4Network("192.0.2.0/24"),))
    mode.load({}, here)
    assert not mode.was_edited()
    links.set_addresses("lo", [IPv4Interface("127.0.0.1/8"), IPv4Interface("192.0.2.2/32")])
    assert mode.was_edited()
    mode.load({}, here)
    assert "192.0.2.2" in lab.nft(NODE).list("set ip kube-proxy-next nodeport-ips")


def test_what_a_killed_predecessor_or_a_real_kube_proxy_left_is_replaced_and_removed(lab: Lab) -> None:
    nft = lab.nft(NODE)
    nft.load(
        "add table ip kube-proxy\n"
        "add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority -90; }\n"
        "add map ip kube-proxy service-ips { type inet_service : verdict; }\n"
        "add table ip kube-proxy-next\nadd chain ip kube-proxy-next half-made\n"
        "add table ip6 kube-proxy\nadd table ip other\n"
    )
    mode = fresh_mode(lab)
    mode.load({}, HERE)
    assert mode.differences({}) == []
    assert nft.list("tables").count("table ip kube-proxy") == 1
    assert mode.teardown()
    assert nft.list("tables").split("\n") == ["table ip other", ""]
