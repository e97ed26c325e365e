"""The fixed part of kube-proxy's nftables table: base chains, and the chains, maps and sets that all Services share.

Pure. Written as `nft list table` prints it, so that both can be compared as text.
"""

from __future__ import annotations

from testbed.proxy.virtualport import Here

TABLE = "kube-proxy"
OTHER_TABLE = "kube-proxy-next"
"""Where a ruleset is put together beside the one in use, before it takes over."""
TABLES = (TABLE, OTHER_TABLE)

NODE_PORT_IPS = "nodeport-ips"

_MARK = "0x00004000"
MARK_IT = f"meta mark set meta mark | {_MARK}"

_WHY_MARKED = "masquerade clusterIP traffic from outside cluster"

_SKELETON = """\
table ip {table} {{
	comment "rules for kube-proxy"

	set hairpin-connections {{
		type ipv4_addr . ipv4_addr . inet_proto . inet_service
		comment "service hairpin connections"
	}}

	set cluster-ips {{
		type ipv4_addr
		comment "Active ClusterIPs"
	}}

	set nodeport-ips {{
		type ipv4_addr
		comment "IPs that accept NodePort traffic"
	}}

	map no-endpoint-services {{
		type ipv4_addr . inet_proto . inet_service : verdict
		comment "vmap to drop or reject packets to services with no endpoints"
	}}

	map no-endpoint-nodeports {{
		type inet_proto . inet_service : verdict
		comment "vmap to drop or reject packets to service nodeports with no endpoints"
	}}

	map firewall-ips {{
		type ipv4_addr . inet_proto . inet_service : verdict
		comment "destinations that are subject to LoadBalancerSourceRanges"
	}}

	map service-ips {{
		type ipv4_addr . inet_proto . inet_service : verdict
		comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"
	}}

	map service-nodeports {{
		type inet_proto . inet_service : verdict
		comment "NodePort traffic"
	}}

	chain services {{
		ip daddr @cluster-ips ip saddr != {cluster_cidr} {mark_it} comment "{why_marked}"
		ip daddr . meta l4proto . th dport vmap @service-ips
		{is_node_port} meta l4proto . th dport vmap @service-nodeports
	}}

	chain firewall-check {{
		ip daddr . meta l4proto . th dport vmap @firewall-ips
	}}

	chain service-endpoints-check {{
		ip daddr . meta l4proto . th dport vmap @no-endpoint-services
	}}

	chain nodeport-endpoints-check {{
		{is_node_port} meta l4proto . th dport vmap @no-endpoint-nodeports
	}}

	chain cluster-ips-check {{
		ip daddr @cluster-ips goto reject-chain comment "Reject traffic to invalid ports of ClusterIPs"
		ip daddr {service_cidr} drop comment "Drop traffic to unallocated ClusterIPs"
	}}

	chain reject-chain {{
		comment "helper for @no-endpoint-services / @no-endpoint-nodeports"
		reject with tcp reset
		reject
	}}

	chain masquerading {{
		meta mark & {mark} != 0x00000000 meta mark set meta mark ^ {mark} masquerade fully-random
		ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random
	}}
}}
"""

_HOOKS = """\
table ip {table} {{
	chain filter-prerouting-pre-dnat {{
		type filter hook prerouting priority dstnat - 10; policy accept;
		ct state new jump firewall-check
	}}

	chain filter-output-pre-dnat {{
		type filter hook output priority -110; policy accept;
		ct state new jump firewall-check
	}}

	chain nat-prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}}

	chain nat-output {{
		type nat hook output priority -100; policy accept;
		jump services
	}}

	chain filter-input {{
		type filter hook input priority filter; policy accept;
		ct state new jump nodeport-endpoints-check
		ct state new jump service-endpoints-check
	}}

	chain filter-forward {{
		type filter hook forward priority filter; policy accept;
		ct state new jump service-endpoints-check
		ct state new jump cluster-ips-check
	}}

	chain filter-output {{
		type filter hook output priority filter; policy accept;
		ct state new jump service-endpoints-check
		ct state new jump cluster-ips-check
	}}

	chain nat-postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		jump masquerading
	}}
}}
"""


def skeleton(table: str, here: Here) -> str:
    """The table, its maps and sets, and the chains that look things up in them. No packet comes there yet.

    They are made in one transaction: nft 1.0.6 refuses a rule with `th dport` and a map which it has read back.
    """
    is_node_port = f"ip daddr @{NODE_PORT_IPS}"
    if serves_every_address(here):
        is_node_port = "fib daddr type local ip daddr != 127.0.0.0/8"
    return _SKELETON.format(
        table=table, mark=_MARK, mark_it=MARK_IT, is_node_port=is_node_port,
        cluster_cidr=here.cluster_cidr, why_marked=_WHY_MARKED, service_cidr=here.service_cidr,
    )  # fmt: skip


def hooks(table: str) -> str:
    """The base chains: with these the table takes effect."""
    return _HOOKS.format(table=table)


def serves_every_address(here: Here) -> bool:
    """Whether node ports are served at whatever address the node has."""
    return any(network.prefixlen == 0 for network in here.node_port_addresses)
