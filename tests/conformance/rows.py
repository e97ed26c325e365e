"""The rows of CONFORMANCE.md that are shown here: each is data and one check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from tests.conformance import (
    affinity,
    conntrack,
    disturbed,
    dns,
    endpoints,
    hostports,
    latency,
    lifecycle,
    network,
    nodeports,
    policies,
    services,
    terminating,
    zones,
)
from tests.conformance.bed import Bed

Check = Callable[[Bed], Awaitable[str | None]]
DEFAULT_BACKEND, DEFAULT_PROXY = "vxlan", "nftables"
_HOST_GW = {"host-gw": "host-gw has no overlay device"}
_ONLY_NFTABLES = {
    mode: f"{mode} mode knows only the addresses that Services have; others go where the routes lead (KEP-3866)"
    for mode in ("iptables", "ipvs")
}


@dataclass(frozen=True)
class Row:
    """One behaviour.

    The check returns where it holds, perhaps with something worth telling, and raises NotApplicable or says what is
    wrong. A row that is `alone` breaks, changes or measures the cluster: it runs after the others, and not beside any.
    """

    id: str
    what: str
    check: Check
    alone: bool = False
    gaps: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Backends and proxy modes that do not promise it, and why not."""

    @property
    def is_of_backends(self) -> bool:
        """Whether it may differ by backend; the others may differ by proxy mode."""
        return self.id.startswith("NET-") and self.id != "NET-07"

    def gap(self, mode: str) -> str:
        """Why `vxlan+nftables` or the like does not promise it; empty where it does."""
        return next((why for part, why in self.gaps.items() if part in mode.split("+")), "")

    def belongs_to(self, mode: str) -> bool:
        """Whether that mode is where to look: rows of backends with the default proxy, others with the default backend.

        A foreign cluster's mode is empty: nobody knows it, and every row is tried.
        """
        backend, _, proxy = mode.partition("+")
        return not mode or (proxy == DEFAULT_PROXY if self.is_of_backends else backend == DEFAULT_BACKEND)


ROWS = (
    Row("NET-01", "pods of one node answer each other over HTTP", network.pods_of_one_node_answer_http),
    Row("NET-02", "pods of one node answer each other over UDP", network.pods_of_one_node_answer_udp),
    Row("NET-03", "host-network clients reach every pod over HTTP and UDP", network.nodes_reach_every_pod),
    Row("NET-04", "a server on another node sees the pod's own address", network.sources_are_kept_between_nodes),
    Row("NET-05", "outside, a pod bears its node's address", network.what_leaves_the_cluster_bears_the_nodes_address),
    Row("NET-06", "containers share the pod's network and leave it as it is", network.containers_share_a_pods_network),
    Row("NET-07", "host ports differ by address or protocol", hostports.host_ports_differ_by_address_or_protocol),
    Row("NET-08", "1 MB of HTTP and 60 kB of UDP arrive intact", network.large_messages_arrive_whole),
    Row("NET-09", "full-size packets pass, longer ones do not", network.full_size_packets_pass_whole),
    Row("SVC-01", "default/kubernetes exists and leads to the API server", services.the_api_is_a_service),
    Row("SVC-02", "endpoints follow pods, one by one", services.endpoints_follow_each_step),
    Row("SVC-03", "each port has its own endpoints", services.each_port_has_its_own_endpoints),
    Row("SVC-04", "every backend is reached from pod, node and other node", services.every_backend_is_reached),
    Row("SVC-05", "TCP and UDP of one port are apart", services.protocols_of_one_port_are_apart),
    Row("SVC-06", "node ports answer on every node", nodeports.node_ports_answer_on_every_node),
    Row("SVC-07", "a client keeps its backend", affinity.a_client_keeps_its_backend),
    Row("SVC-08", "so it does through a node port", affinity.a_client_keeps_its_backend_through_a_node_port),
    Row("SVC-09", "affinity can be switched on and off", affinity.affinity_can_be_switched),
    Row("SVC-10", "affinity ends when a client is idle for long", affinity.affinity_ends_when_a_client_is_idle),
    Row("SVC-11", "a Service's type can be changed", lifecycle.types_can_be_changed),
    Row("SVC-12", "a pod reaches itself through its Service", services.a_pod_reaches_itself_through_its_service),
    Row("SVC-13", "through a Service the source is kept", services.sources_are_kept_through_a_service),
    Row("SVC-14", "a Service without endpoints refuses at once", services.no_endpoints_means_refused),
    Row("SVC-15", "so does one whose pods were evicted", terminating.a_failed_pod_leaves_nobody_behind_the_service),
    Row("SVC-16", "a ClusterIP's undefined port refuses", lifecycle.undefined_ports_are_refused),
    Row("SVC-17", "nobody's service address is silent", lifecycle.addresses_of_nobody_are_silent, gaps=_ONLY_NFTABLES),
    Row("SVC-18", "external policy Local shows the real client", policies.local_policy_shows_the_real_client),
    Row("SVC-19", "it does not bind pods", policies.pods_are_not_bound_by_the_external_policy),
    Row("SVC-20", "nor a node's own processes", policies.nodes_are_not_bound_by_the_external_policy),
    Row("SVC-21", "health check node ports tell where endpoints are", policies.health_checks_tell_where_endpoints_are),
    Row("SVC-22", "internal policy Local stays on the node", policies.internal_policy_local_stays_on_the_node),
    Row("SVC-23", "also with hostNetwork", policies.internal_policy_local_finds_host_network_endpoints),
    Row(
        "SVC-24", "the last endpoints serve while they terminate", terminating.the_last_ones_serve_while_they_terminate
    ),
    Row("SVC-25", "policy Local uses those that terminate here", terminating.local_policy_uses_those_that_terminate),
    Row(
        "SVC-26",
        "who terminates gets nothing new, keeps what it has",
        terminating.who_terminates_gets_nothing_new_and_keeps_what_it_has,
    ),
    Row(
        "SVC-27", "unready addresses are published where asked", terminating.unready_addresses_are_published_where_asked
    ),
    Row("SVC-28", "a zone with endpoints keeps to itself", zones.a_zone_with_endpoints_keeps_to_itself),
    Row("SVC-29", "a node with endpoints keeps to itself", zones.a_node_with_endpoints_keeps_to_itself),
    Row("SVC-30", "hints count only if all endpoints have them", zones.hints_count_only_if_all_have_them),
    Row("SVC-31", "external addresses lead to backends", nodeports.external_addresses_lead_to_backends),
    Row("SVC-32", "load balancers take only allowed sources", nodeports.load_balancers_take_only_allowed_sources),
    Row("SVC-34", "node ports are in range and given once", nodeports.node_ports_are_in_range_and_given_once),
    Row("SVC-35", "another proxy's Services are left alone", lifecycle.another_proxys_services_are_left_alone),
    Row("SVC-36", "so are those labelled headless", lifecycle.headless_labels_stop_the_proxy),
    Row("SVC-40", "a Service's ports can be changed", lifecycle.ports_can_be_changed),
    Row("SVC-41", "Services may share a selector", lifecycle.services_may_share_a_selector),
    Row("SVC-42", "addresses with leading zeros are refused", lifecycle.leading_zeros_are_no_addresses),
    Row("SVC-44", "a status has a life of its own", lifecycle.a_status_has_a_life_of_its_own),
    Row("CT-01", "a UDP flow follows its backend's successor", conntrack.a_flow_follows_its_backends_successor),
    Row("CT-02", "so does one through a node port", conntrack.a_flow_through_a_node_port_follows_too),
    Row(
        "CT-03",
        "one that began before all endpoints gets through",
        conntrack.a_flow_older_than_all_endpoints_gets_through,
    ),
    Row("CT-04", "a segment out of window ends no connection", conntrack.segments_out_of_window_end_nothing),
    Row("CT-05", "a flow keeps its backend when others go", conntrack.a_flow_keeps_its_backend_when_others_go),
    Row("CT-06", "a deleted Service's connections go on", conntrack.a_deleted_services_connections_go_on),
    Row("DNS-01", "the zone tells its version", dns.the_zone_tells_its_version),
    Row("DNS-02", "a Service has its address", dns.a_service_has_its_address),
    Row("DNS-03", "named ports have SRV records", dns.named_ports_have_srv_records),
    Row("DNS-04", "a ClusterIP has a name", dns.a_cluster_ip_has_a_name),
    Row("DNS-05", "a headless Service has its ready endpoints", dns.a_headless_service_has_its_ready_endpoints),
    Row(
        "DNS-06",
        "a headless Service with none ready does not exist",
        dns.a_headless_service_with_none_ready_does_not_exist,
    ),
    Row("DNS-07", "a pod with a hostname has a name", dns.a_pod_with_a_hostname_has_a_name),
    Row("DNS-08", "a headless SRV leads to each endpoint and port", dns.a_headless_srv_leads_to_each_endpoint_and_port),
    Row("DNS-09", "an endpoint has a name", dns.an_endpoint_has_a_name),
    Row("DNS-10", "an external name is an alias", dns.an_external_name_is_an_alias),
    Row("DNS-11", "partial names are found", dns.partial_names_are_found),
    Row("DNS-12", "a pod may bring its own resolver", dns.a_pod_may_bring_its_own_resolver),
    Row("DNS-13", "a pod's hosts file has its own name", dns.a_pods_hosts_file_has_its_own_name),
    Row("DNS-14", "case makes no difference", dns.case_makes_no_difference),
    Row("DNS-15", "unready addresses may be published", dns.unready_addresses_may_be_published),
    Row("DNS-16", "long answers come over TCP", dns.long_answers_come_over_tcp),
    Row("EPS-01", "slices bear their Service's labels and go with it", endpoints.slices_belong_to_their_service),
    Row("EPS-02", "each set of ports has its slice", endpoints.ports_sets_have_slices_of_their_own),
    Row("EPS-03", "Endpoints written by hand are mirrored", endpoints.endpoints_written_by_hand_are_mirrored),
    Row("EPS-04", "slices hold a hundred and are merged", endpoints.slices_hold_a_hundred_and_are_merged),
    Row("EPS-05", "conditions of endpoints follow their pod", endpoints.conditions_of_endpoints_follow_their_pod),
    Row("EPS-06", "changes carry the time of their cause", endpoints.changes_carry_the_time_of_their_cause),
    Row("CT-07", "parallel queries get through", conntrack.parallel_queries_get_through, alone=True),
    Row("SVC-39", "a new Service works at once", latency.a_new_service_works_at_once, alone=True),
    Row("NET-11", "a deleted overlay device comes back", disturbed.a_deleted_overlay_device_comes_back, True, _HOST_GW),
    Row("SVC-37", "Services outlive the node daemon, flush and edit", disturbed.services_outlive_their_proxy, True),
    Row("SVC-38", "Services outlive the API server", disturbed.services_outlive_the_api_server, True),
    Row("SVC-33", "node ports are where they should be", nodeports.node_ports_are_served_where_the_topology_says, True),
    Row("NET-10", "a removed node is forgotten within a second", disturbed.a_removed_node_is_forgotten, True),
)
