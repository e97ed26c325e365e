"""The rows of CONFORMANCE.md that are shown here: each is data and one check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.conformance import disturbed, network, services
from tests.conformance.bed import Bed

Check = Callable[[Bed], Awaitable[None]]


@dataclass(frozen=True)
class Row:
    """One behaviour. The check returns where it holds, and raises NotApplicable or says what is wrong.

    A `disturbing` row breaks or changes the cluster: it runs alone, after the others. `modes` are the only ones to
    which the row applies, by a part of their name; all, if there are none.
    """

    id: str
    what: str
    check: Check
    disturbing: bool = False
    modes: tuple[str, ...] = ()

    def applies_to(self, mode: str) -> bool:
        """Whether the row means anything in a mode; of a foreign cluster's, which is empty, nobody knows."""
        return not (self.modes and mode) or any(part in mode.split("+") for part in self.modes)


ROWS = (
    Row("NET-01", "pods of one node answer each other over HTTP", network.pods_of_one_node_answer_http),
    Row("NET-02", "pods of one node answer each other over UDP", network.pods_of_one_node_answer_udp),
    Row("NET-03", "host-network clients reach every pod over HTTP and UDP", network.nodes_reach_every_pod),
    Row("NET-04", "a server on another node sees the pod's own address", network.sources_are_kept_between_nodes),
    Row("NET-05", "outside, a pod bears its node's address", network.what_leaves_the_cluster_bears_the_nodes_address),
    Row("NET-06", "containers share the pod's network and leave it as it is", network.containers_share_a_pods_network),
    Row("NET-08", "1 MB of HTTP and 60 kB of UDP arrive intact", network.large_messages_arrive_whole),
    Row("NET-09", "full-size packets pass, longer ones do not", network.full_size_packets_pass_whole),
    Row("SVC-01", "default/kubernetes exists and leads to the API server", services.the_api_is_a_service),
    Row("SVC-02", "endpoints follow pods, one by one", services.endpoints_follow_each_step),
    Row("SVC-03", "each port has its own endpoints", services.each_port_has_its_own_endpoints),
    Row("SVC-04", "every backend is reached from pod, node and other node", services.every_backend_is_reached),
    Row("SVC-05", "TCP and UDP of one port are apart", services.protocols_of_one_port_are_apart),
    Row("SVC-12", "a pod reaches itself through its Service", services.a_pod_reaches_itself_through_its_service),
    Row("SVC-13", "through a Service the source is kept", services.sources_are_kept_through_a_service),
    Row("SVC-14", "a ClusterIP without endpoints refuses at once", services.no_endpoints_means_refused),
    Row("EPS-01", "slices bear their Service's labels and go with it", services.slices_belong_to_their_service),
    Row("EPS-05", "conditions of endpoints follow their pod", services.conditions_of_endpoints_follow_their_pod),
    Row(
        "NET-11", "a deleted overlay device comes back", disturbed.a_deleted_overlay_device_comes_back, True, ("vxlan",)
    ),
    Row("SVC-37", "Services outlive the node daemon and a foreign flush", disturbed.services_outlive_their_proxy, True),
    Row("SVC-38", "Services outlive the API server", disturbed.services_outlive_the_api_server, True),
    Row("NET-10", "a removed node is forgotten within a second", disturbed.a_removed_node_is_forgotten, True),
)
