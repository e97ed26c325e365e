"""What a hostNetwork pod is asked about its node's network: raw netlink and packet sockets, standard library only.

Sent to `python3 -` on standard input. Written from linux/rtnetlink.h, neighbour.h, netfilter/nf_tables.h and
netfilter/nfnetlink_conntrack.h, and used to judge the product's own netlink code, so it shares nothing with it. Needs
NET_ADMIN and NET_RAW.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

Answer = dict[str, Any]
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_DELLINK, RTM_GETROUTE, RTM_GETNEIGH = 17, 26, 30
AF_BRIDGE = 7
RTA_DST, NDA_DST, NDA_LLADDR = 1, 1, 2
RTMSG_SIZE = NDMSG_SIZE = 12
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES = 16, 17, 10
NFT_MSG_DELTABLE = 2
IPCTNL_MSG_CT_GET_STATS_CPU = 1 << 8 | 4
CTA_STATS = {9: "insert_failed", 10: "drop", 14: "clash_resolve"}
ETH_P_ALL, ETH_P_IP = 3, 0x0800
VXLAN_PORT = 8472
DF, MORE_FRAGMENTS, OFFSET = 0x4000, 0x2000, 0x1FFF


def delete_link(name: str) -> Answer:
    """`ip link delete NAME`, by a foreign hand."""
    ifinfo = struct.pack("BBHiII", socket.AF_UNSPEC, 0, 0, socket.if_nametoindex(name), 0, 0)
    with netlink(NETLINK_ROUTE) as route:
        route.send(message(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, ifinfo))
        expect_ack(route)
    return {}


def flush_ruleset() -> Answer:
    """`nft flush ruleset`, by a foreign hand: DELTABLE with no family and no name deletes every table."""
    batch = struct.pack("!BBH", socket.AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES)
    every_table = struct.pack("!BBH", socket.AF_UNSPEC, 0, 0)
    delete = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_DELTABLE
    with netlink(NETLINK_NETFILTER) as netfilter:
        netfilter.send(
            message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, batch)
            + message(delete, NLM_F_REQUEST | NLM_F_ACK, every_table, sequence=1)
            + message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, batch)
        )
        expect_ack(netfilter)
    return {}


def tables() -> Answer:
    """Who is spoken to: destinations of routes, neighbours' addresses, and the FDB's outer addresses."""
    return {
        "links": [name for _, name in socket.if_nameindex()],
        "routes": sorted(f"{address}/{length}" for length, address in routes()),
        "neighbours": sorted(addresses_of_neighbours(socket.AF_INET)),
        "fdb": sorted(addresses_of_neighbours(AF_BRIDGE)),
    }


def conntrack_statistics() -> Answer:
    """What `conntrack -S` shows, summed over the processors."""
    body = struct.pack("!BBH", socket.AF_UNSPEC, 0, 0)
    total = dict.fromkeys(CTA_STATS.values(), 0)
    for answer in dump(IPCTNL_MSG_CT_GET_STATS_CPU, body, NETLINK_NETFILTER):
        for kind, value in attributes(answer[4:]):
            if kind in CTA_STATS:
                total[CTA_STATS[kind]] += struct.unpack("!I", value)[0]
    return total


def wait_gone(route: str, neighbour: str, fdb: str, timeout_s: float) -> Answer:
    """When, on the monotonic clock, each of these left its table; None for what is still there at the end.

    The clock is the machine's: it may be compared with one read in another namespace.
    """
    gone: dict[str, float | None] = {"routes": None, "neighbours": None, "fdb": None}
    wanted = {"routes": route, "neighbours": neighbour, "fdb": fdb}
    deadline = time.monotonic() + timeout_s
    print("looking", flush=True)  # noqa: T201
    while None in gone.values() and time.monotonic() < deadline:
        now = tables()
        for table, entry in wanted.items():
            if gone[table] is None and entry not in now[table]:
                gone[table] = time.monotonic()
        time.sleep(0.01)
    return gone


def capture(device: str, seconds: float, destination: str = "") -> Answer:
    """IPv4 frames seen on `device`, to that destination if one is given: IP length, fragment bits, ports."""
    frames = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as tap:
        tap.bind((device, ETH_P_ALL))
        print("looking", flush=True)  # noqa: T201
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            tap.settimeout(left)
            try:
                frame = describe(tap.recv(65536))
            except TimeoutError:
                break
            if frame and destination in ("", frame["destination"]):
                frames.append(frame)
    return {"frames": frames}


def describe(frame: bytes) -> Answer | None:
    """An Ethernet frame with an IPv4 packet in it, and in VXLAN's UDP the one within; None for any other."""
    if struct.unpack_from("!H", frame, 12)[0] != ETH_P_IP:
        return None
    length, flags, protocol = *struct.unpack_from("!H2xH", frame, 16), frame[23]
    has_ports = protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) and not flags & OFFSET
    header = 14 + (frame[14] & 15) * 4
    port = struct.unpack_from("!H", frame, header + 2)[0] if has_ports else 0
    return {
        "length": length,
        "is_fragment": bool(flags & (MORE_FRAGMENTS | OFFSET)),
        "dont_fragment": bool(flags & DF),
        "protocol": protocol,
        "destination": socket.inet_ntoa(frame[30:34]),
        "inner": describe(frame[header + 16 :]) if port == VXLAN_PORT else None,
    }


def routes() -> Iterator[tuple[int, str]]:
    """Prefix length and destination of every IPv4 route but those of the table `local`."""
    for body in dump(RTM_GETROUTE, bytes(RTMSG_SIZE)):
        family, length, table = body[0], body[1], body[4]
        if family == socket.AF_INET and table != 255:
            address = dict(attributes(body[RTMSG_SIZE:])).get(RTA_DST, bytes(4))
            yield length, socket.inet_ntoa(address)


def addresses_of_neighbours(family: int) -> Iterator[str]:
    """The addresses in the neighbour table, or (AF_BRIDGE) the outer ones in the forwarding tables."""
    for body in dump(RTM_GETNEIGH, struct.pack("B11x", family)):
        address = dict(attributes(body[NDMSG_SIZE:])).get(NDA_DST, b"")
        if body[0] == family and len(address) == 4:
            yield socket.inet_ntoa(address)


def netlink(family: int) -> socket.socket:
    """A netlink socket of this network namespace."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    """A netlink message; bodies here are multiples of four bytes long."""
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def dump(kind: int, body: bytes, family: int = NETLINK_ROUTE) -> Iterator[bytes]:
    """The bodies of all answers to a dump request."""
    with netlink(family) as channel:
        channel.send(message(kind, NLM_F_REQUEST | NLM_F_DUMP, body))
        while True:
            for answered, answer in messages(channel.recv(1 << 17)):
                if answered == NLMSG_DONE:
                    return
                yield answer


def expect_ack(channel: socket.socket) -> None:
    """Read the kernel's verdict; OSError with its errno where it refused."""
    for kind, body in messages(channel.recv(65536)):
        if kind == NLMSG_ERROR and (number := -struct.unpack_from("i", body)[0]):
            raise OSError(number, "the kernel refused")


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each message in a datagram."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        yield kind, data[16:length]
        data = data[(length + 3) & ~3 :]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind, data[4:length]
        data = data[(length + 3) & ~3 :]
