"""A server that sends each client a segment far outside the window, and goes on. Run in a pod: standard library only.

`python3 -c … PORT`. The client's connection tracking holds such a segment for INVALID and does not translate it back:
the client then gets it from an address that it never spoke to, answers with RST, and that RST *is* in the window. What
prevents it is `nf_conntrack_tcp_be_liberal`, or a rule that drops what is invalid (kubernetes/kubernetes#74839; agnhost
has the same server as regression-issue-74839). PORT + 1 accepts connections when PORT does. Needs NET_RAW.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time

FAR = 110_000
PSH_ACK = 0x18


def serve(port: int) -> None:
    """Every connection to `port` is one experiment: `injected`, a second later `still here`."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    listener = socket.create_server(("", port))
    threading.Thread(target=be_ready, args=(port + 1,), daemon=True).start()
    while True:
        connection, client = listener.accept()
        inject(raw, connection, client)
        threading.Thread(target=go_on, args=(connection,), daemon=True).start()


def be_ready(port: int) -> None:
    """Accept and close: for the readiness probe, which is no client."""
    listener = socket.create_server(("", port))
    while True:
        listener.accept()[0].close()


def inject(raw: socket.socket, connection: socket.socket, client: tuple[str, int]) -> None:
    """Send a segment of this connection whose sequence number is far behind what the client has acknowledged."""
    server = connection.getsockname()
    while True:
        packet = raw.recv(65536)
        segment = packet[(packet[0] & 15) * 4 :]
        source, destination, sequence, acknowledged = struct.unpack_from("!HHII", segment)
        is_handshakes_last = (source, destination) == (client[1], server[1]) and acknowledged
        if is_handshakes_last and socket.inet_ntoa(packet[12:16]) == client[0]:
            break
    raw.sendto(made_up(server, client, (acknowledged - FAR) % 2**32, sequence), (client[0], 0))


def made_up(source: tuple[str, int], destination: tuple[str, int], sequence: int, acknowledged: int) -> bytes:
    """A TCP segment (RFC 9293) with four bytes of data."""
    data = b"boom"
    head = struct.pack("!HHIIBBHHH", source[1], destination[1], sequence, acknowledged, 5 << 4, PSH_ACK, 65535, 0, 0)
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    pseudo = addresses + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(head) + len(data))
    return head[:16] + struct.pack("!H", checksum(pseudo + head + data)) + head[18:] + data


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def go_on(connection: socket.socket) -> None:
    """Speak twice; a client that reset the connection in between hears only the first."""
    with connection:
        connection.sendall(b"injected\n")
        time.sleep(1.0)
        connection.sendall(b"still here\n")


if __name__ == "__main__":
    serve(int(sys.argv[1]))
