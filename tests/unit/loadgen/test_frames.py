"""What a probe reads out of frames and tables."""

import struct
from ipaddress import IPv4Address

import pytest

from testbed.errors import MachineLacks
from testbed.loadgen.probe.capture import default_device
from testbed.loadgen.probe.counters import devices
from testbed.loadgen.probe.frames import Flow, flow
from testbed.loadgen.probe.machine import cpu_model, steal

ETHERNET = bytes(12) + b"\x08\x00"


def ip(source: str, target: str, protocol: int, payload: bytes, *, fragment: int = 0) -> bytes:
    """An IPv4 packet."""
    addresses = IPv4Address(source).packed + IPv4Address(target).packed
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, fragment, 64, protocol, 0) + addresses + payload


def udp(source_port: int, target_port: int, payload: bytes) -> bytes:
    """A UDP datagram."""
    return struct.pack("!HHHH", source_port, target_port, 8 + len(payload), 0) + payload


def test_a_plain_packet_is_its_own_flow() -> None:
    frame = ETHERNET + ip("10.0.0.1", "10.0.0.2", 6, struct.pack("!HH", 4000, 80) + bytes(16))
    assert flow(frame) == Flow("10.0.0.1", "10.0.0.2", "tcp", 4000, 80)


def test_a_packet_in_a_tunnel_is_its_inner_flow_with_the_tunnels_ends() -> None:
    inner = ETHERNET + ip("10.244.0.2", "10.244.1.2", 6, struct.pack("!HH", 4000, 80) + bytes(16))
    vxlan = struct.pack("!II", 0x08000000, 77 << 8) + inner
    frame = ETHERNET + ip("198.18.0.10", "198.18.0.11", 17, udp(50_000, 8472, vxlan))
    assert flow(frame) == Flow("10.244.0.2", "10.244.1.2", "tcp", 4000, 80, 77, "198.18.0.10", "198.18.0.11")


def test_a_later_fragment_has_no_ports() -> None:
    seen = flow(ETHERNET + ip("10.0.0.1", "10.0.0.2", 17, b"\xff" * 20, fragment=100))
    assert seen == Flow("10.0.0.1", "10.0.0.2", "udp")


@pytest.mark.parametrize("frame", [b"", bytes(10), ETHERNET, bytes(12) + b"\x86\xdd" + bytes(40), ETHERNET + bytes(8)])
def test_what_is_no_ipv4_is_no_flow(frame: bytes) -> None:
    assert flow(frame) is None


def test_a_truncated_tunnel_packet_is_at_least_its_outer_flow() -> None:
    frame = ETHERNET + ip("198.18.0.10", "198.18.0.11", 17, udp(50_000, 8472, b"\x08"))
    seen = flow(frame)
    assert seen
    assert (seen.source, seen.vni) == ("198.18.0.10", None)


def test_the_default_route_names_the_device_to_watch() -> None:
    table = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "cni0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "eth0\t00000000\t010012C6\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    )
    assert default_device(table) == "eth0"
    with pytest.raises(MachineLacks, match="no default route"):
        default_device(table.partition("\n")[0])


def test_every_machine_has_a_loopback_device() -> None:
    table = "Inter-|\n face |\n    lo: 10 2 0 0 0 0 0 0 10 2 0 0 0 0 0 0\n"
    found = devices(table)["lo"]
    assert found["rx_packets"] == 2
    assert found["tx_bytes"] == 10
    assert isinstance(found["mtu"], int)


def test_a_machine_tells_its_processor_and_what_was_stolen() -> None:
    assert cpu_model("processor: 0\nmodel name\t: Fast One\n") == "Fast One"
    assert cpu_model("")
    assert steal("cpu  50 0 25 20 0 0 0 5 0 0\n") == 0.05
    assert steal("") == 0
