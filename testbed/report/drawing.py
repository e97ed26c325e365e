"""The topology as a picture: nodes, bridges, tunnel devices, the switch, and the way that each variant takes. Pure SVG.

One picture for each cluster, of the nodes that take part. From top to bottom: pods and host processes, the bridge, the
tunnel's device, the node's own device, the switch. Lines are the paths, in the colours of the charts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from testbed.compare.environment import Environment, VariantInfo
from testbed.compare.path import TUNNELS
from testbed.report.charts import shade

NODE_WIDTH, NODE_GAP, EDGE = 352, 48, 8
ENDS, BRIDGE, TUNNEL, DEVICE, SWITCH = 64, 124, 176, 240, 312
"""Heights (centres) of the layers."""
Point = tuple[int, int]
BOX, SWITCH_HEIGHT = 32, 48
BOX_WIDTH = 158
POD_X, HOST_X = 12, 182
"""Left edges of the two columns within a node: the pod network's, and the host's."""
LANE = 28
"""How far into a box the paths run; words stand to their right."""
BELOW_WORDS = 11
"""From a box's middle to where a line may cross it."""
SPREAD = 7
"""Between the lines of two variants."""


@dataclass(frozen=True)
class Column:
    """A node in the picture: its name, where it begins, and who stands in it."""

    name: str
    address: str
    left: int
    pods: tuple[str, ...]
    hosts: tuple[str, ...]


def draw_clusters(environment: Environment) -> Iterator[tuple[str, str]]:
    """Title and SVG of every cluster."""
    for name, spec in environment.clusters.items():
        variants = {key: info for key, info in environment.variants.items() if info.cluster == name}
        backend = spec["network"]["backend"]
        title = f"{', '.join(variants)}: backend {backend}, {spec['services']['proxy']}"
        yield title, draw(environment, variants, spec)


def draw(environment: Environment, variants: Mapping[str, VariantInfo], spec: Mapping[str, Any]) -> str:
    """One cluster."""
    columns = _columns(variants, spec)
    has_tunnel = spec["network"]["backend"] in TUNNELS
    width = EDGE * 2 + len(columns) * NODE_WIDTH + (len(columns) - 1) * NODE_GAP
    parts = [*_switch(width, spec)]
    for column in columns.values():
        parts += _node(column, has_tunnel)
    for index, (name, info) in enumerate(variants.items()):
        shift = round((index - (len(variants) - 1) / 2) * SPREAD)
        colour = f"var(--{shade(environment, name)})"
        parts.append(_path(name, info, columns, colour, has_tunnel, shift))
    label = "; ".join(f"{name} from {info.client_node} to {info.target_node}" for name, info in variants.items())
    return (
        f'<svg viewBox="0 0 {width} {SWITCH + SWITCH_HEIGHT // 2 + 4}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _columns(variants: Mapping[str, VariantInfo], spec: Mapping[str, Any]) -> dict[str, Column]:
    addresses = {node["name"]: str(node["address"]).partition("/")[0] for node in spec["nodes"]}
    ends: dict[str, dict[bool, dict[str, None]]] = {}
    for info in variants.values():
        for node, is_host, role in (
            (
                info.client_node,
                info.client_host_network,
                "load",
            ),
            (info.target_node, info.target_host_network, "web"),
        ):
            ends.setdefault(node, {True: {}, False: {}})[is_host][role] = None
    return {
        name: Column(
            name,
            addresses.get(name, ""),
            EDGE + index * (NODE_WIDTH + NODE_GAP),
            tuple(here[False]),
            tuple(here[True]),
        )
        for index, (name, here) in enumerate(ends.items())
    }


def _node(column: Column, has_tunnel: bool) -> Iterator[str]:
    yield _rect("node", column.left, 12, NODE_WIDTH, DEVICE - 12)
    yield _text("name", column.left + 12, 32, f"node {column.name}", anchor="start")
    yield _text("small", column.left + NODE_WIDTH - 12, 32, column.address, anchor="end")
    if column.pods:
        yield from _box("pod", column.left + POD_X, ENDS, f"{' + '.join(column.pods)} pod")
        yield from _box("device", column.left + POD_X, BRIDGE, "bridge cni0")
        if has_tunnel:
            yield from _box("device", column.left + POD_X, TUNNEL, "VXLAN flannel.1")
    if column.hosts:
        yield from _box("host", column.left + HOST_X, ENDS, f"{' + '.join(column.hosts)} process")
    yield from _box("device", _device_x(column), DEVICE, "eth0")


def _switch(width: int, spec: Mapping[str, Any]) -> Iterator[str]:
    yield _rect("switch", EDGE, SWITCH - SWITCH_HEIGHT // 2, width - 2 * EDGE, SWITCH_HEIGHT)
    words = f"switch, {spec['underlay']['cidr']}, MTU {spec['underlay']['mtu']}"
    yield _text("small", width - EDGE - 12, SWITCH - 6, words, anchor="end")


def _path(
    name: str, info: VariantInfo, columns: Mapping[str, Column], colour: str, has_tunnel: bool, shift: int
) -> str:
    here, there = columns[info.client_node], columns[info.target_node]
    if here is there:
        points = _within(here, info, shift)
    else:
        tunnelled = has_tunnel and not info.target_host_network
        down = _descent(here, info.client_host_network, has_tunnel, tunnelled, shift)
        up = _descent(there, info.target_host_network, has_tunnel, tunnelled, shift)[::-1]
        across = SWITCH + SWITCH_HEIGHT // 4 + shift // 2
        points = [*down, (down[-1][0], across), (up[0][0], across), *up]
    drawn = " ".join(f"{x},{y}" for x, y in points)
    dash = ' stroke-dasharray="7 4"' if info.via == "service" else ""
    return (
        f'<polyline class="path" style="stroke:{colour}"{dash} points="{drawn}">'
        f"<title>{escape(name)}</title></polyline>"
        f'<circle cx="{points[0][0]}" cy="{points[0][1]}" r="4" style="fill:{colour}"/>'
    )


def _descent(column: Column, is_host: bool, has_tunnel: bool, tunnelled: bool, shift: int) -> list[Point]:
    """From an end's lower edge down to the node's device."""
    start, device = _lane(column, is_host) + shift, _device_x(column) + LANE + shift
    turn = DEVICE - BOX // 2 - 12 + shift // 2
    points = [(start, ENDS + BOX // 2)]
    if is_host and tunnelled:  # the host's own packets to a pod enter the tunnel too
        inner = column.left + POD_X + BOX_WIDTH - 12
        points += [(start, TUNNEL + BELOW_WORDS), (inner, TUNNEL + BELOW_WORDS), (inner, turn)]
    elif not is_host and has_tunnel and not tunnelled:  # out of the bridge, and past the tunnel
        gap = column.left + POD_X + BOX_WIDTH + (HOST_X - POD_X - BOX_WIDTH) // 2
        points += [(start, BRIDGE + BELOW_WORDS), (gap, BRIDGE + BELOW_WORDS), (gap, turn)]
    else:
        points += [(start, turn)]
    return [*points, (device, turn), (device, DEVICE + BOX // 2)]


def _within(column: Column, info: VariantInfo, shift: int) -> list[Point]:
    """From one end to the other over the node's bridge."""
    first = _lane(column, info.client_host_network) + shift - SPREAD
    last = _lane(column, info.target_host_network) + shift + SPREAD
    return [(first, ENDS + BOX // 2), (first, BRIDGE), (last, BRIDGE), (last, ENDS + BOX // 2)]


def _lane(column: Column, is_host: bool) -> int:
    return column.left + (HOST_X if is_host else POD_X) + LANE


def _device_x(column: Column) -> int:
    return column.left + (NODE_WIDTH - BOX_WIDTH) // 2


def _box(kind: str, left: int, y: int, words: str) -> Iterator[str]:
    yield _rect(kind, left, y - BOX // 2, BOX_WIDTH, BOX)
    yield _text("label", left + LANE + 22, y + 5, words, anchor="start")


def _rect(kind: str, x: int, y: int, width: int, height: int) -> str:
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'


def _text(kind: str, x: int, y: int, words: str, *, anchor: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'
