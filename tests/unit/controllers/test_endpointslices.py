import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.api.kinds import DEPLOYMENT, ENDPOINT_SLICE, ENDPOINTS, EVENT, NODE, POD, SERVICE
from testbed.api.objects import (
    Object,
    annotations,
    controller_of,
    is_deleting,
    is_ready,
    labels,
    name,
    parse_time,
    spec,
    status,
    uid,
)
from testbed.api.wellknown import LAST_CHANGE_TRIGGER_TIME, SERVICE_NAME_LABEL, ZONE_LABEL
from testbed.client.fake import FakeClient
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.controllers.endpointslices import PACE_S
from tests.unit.client.clients import fake
from tests.unit.controllers.harness import (
    add_node,
    addresses_become,
    controlled,
    deployment,
    endpoints,
    eventually,
    pod,
    ready_pods,
    running,
    service,
    set_node_ready,
    set_ready,
    slices_of,
    vanished,
)

WEB = {"app": "web"}
ENDPOINTS_MANAGED_BY = "endpoints.kubernetes.io/managed-by"


async def conditions_become(client: Client, **wanted: bool) -> None:
    """The one endpoint of the Service has these conditions."""

    async def check() -> bool:
        return [endpoint["conditions"] for endpoint in await endpoints(client, "web")] == [wanted]

    await eventually(check, f"the endpoint is {wanted}")


async def test_the_endpoints_of_a_service_follow_its_pods_step_by_step_to_empty(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        owner = await client.create(service())
        await client.create(pod("one", labels=WEB))
        await addresses_become(client, "web", {"10.244.0.2"})
        await client.create(pod("two", labels=WEB))
        await addresses_become(client, "web", {"10.244.0.2", "10.244.0.3"})
        [slice_] = await slices_of(client, "web")
        assert controller_of(slice_)["uid"] == uid(owner)
        await client.delete(POD, "one", "default")
        await addresses_become(client, "web", {"10.244.0.3"})
        await client.delete(POD, "two", "default")
        await addresses_become(client, "web", set())


async def test_the_slices_go_with_their_service(client: Client) -> None:
    async with controlled(client):
        await client.create(service())
        await eventually(lambda: slices_of(client, "web"), "there is a slice")
        await client.delete(SERVICE, "web", "default")
        await vanished(client, ENDPOINT_SLICE, f"{SERVICE_NAME_LABEL}=web")
        await vanished(client, ENDPOINTS)


async def test_an_endpoint_names_its_pod_its_node_and_its_zone(client: Client) -> None:
    await add_node(client, "a", labels={ZONE_LABEL: "z1"})
    async with controlled(client):
        await client.create(service())
        created = await client.create(pod("one", labels=WEB))
        await addresses_become(client, "web", {"10.244.0.2"})
        [endpoint] = await endpoints(client, "web")
        assert endpoint["targetRef"] == {"kind": "Pod", "namespace": "default", "name": "one", "uid": uid(created)}
        assert (endpoint["nodeName"], endpoint["zone"]) == ("a", "z1")
        await client.patch(NODE, "a", {"metadata": {"labels": {ZONE_LABEL: "z2"}}})

        async def moved() -> bool:
            return [endpoint["zone"] for endpoint in await endpoints(client, "web")] == ["z2"]

        await eventually(moved, "the zone follows the node's label")


async def test_conditions_follow_readiness_and_deletion(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(service())
        # A finalizer keeps the pod from going, so that its endpoint can be looked at while it terminates.
        held = pod("one", labels=WEB)
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await client.create(held)
        await conditions_become(client, ready=True, serving=True, terminating=False)
        await set_ready(client, await client.get(POD, "one", "default"), ready=False)
        await conditions_become(client, ready=False, serving=False, terminating=False)
        await set_ready(client, await client.get(POD, "one", "default"), ready=True)
        await client.delete(POD, "one", "default")
        await conditions_become(client, ready=False, serving=True, terminating=True)
        await set_ready(client, await client.get(POD, "one", "default"), ready=False)
        await conditions_become(client, ready=False, serving=False, terminating=True)


async def test_publish_not_ready_addresses_makes_every_endpoint_ready(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client, makes_ready=False):
        await client.create(service(publishNotReadyAddresses=True))
        await client.create(pod("one", labels=WEB))
        await conditions_become(client, ready=True, serving=False, terminating=False)
        await client.patch(SERVICE, "web", {"spec": {"publishNotReadyAddresses": False}}, "default")
        await conditions_become(client, ready=False, serving=False, terminating=False)


async def test_a_pod_that_has_ended_is_no_endpoint(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(service())
        await client.create(pod("one", labels=WEB))
        await addresses_become(client, "web", {"10.244.0.2"})
        await client.patch(POD, "one", {"status": {"phase": "Succeeded"}}, "default", subresource="status")
        await addresses_become(client, "web", set())


async def test_a_named_target_port_has_a_slice_for_each_number_it_means(client: Client) -> None:
    await add_node(client, "a")
    other = pod("other", labels=WEB)
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = 8080
    async with controlled(client):
        await client.create(service())
        await client.create(pod("one", labels=WEB))
        await client.create(other)
        await addresses_become(client, "web", {"10.244.0.2", "10.244.0.3"})
        ports = [[port["port"] for port in slice_["ports"]] for slice_ in await slices_of(client, "web")]
        assert sorted(ports) == [[80], [8080]]


async def test_several_ports_are_listed_with_their_names_and_protocols(client: Client) -> None:
    await add_node(client, "a")
    wanted = [
        {"name": "tcp", "port": 53, "protocol": "TCP", "targetPort": 5353},
        {"name": "udp", "port": 53, "protocol": "UDP", "targetPort": 5353},
    ]
    async with controlled(client):
        await client.create(service(ports=wanted))
        await client.create(pod("one", labels=WEB))
        await addresses_become(client, "web", {"10.244.0.2"})
        [slice_] = await slices_of(client, "web")
        assert slice_["ports"] == [
            {"name": "tcp", "protocol": "TCP", "port": 5353},
            {"name": "udp", "protocol": "UDP", "port": 5353},
        ]


async def test_a_changed_selector_chooses_other_pods(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(service())
        await client.create(pod("one", labels=WEB))
        await client.create(pod("two", labels={"app": "other"}))
        await ready_pods(client, 2)
        await client.patch(SERVICE, "web", {"spec": {"selector": {"app": "other"}}}, "default")

        async def moved() -> bool:
            return [endpoint["targetRef"]["name"] for endpoint in await endpoints(client, "web")] == ["two"]

        await eventually(moved, "the other pod answers")


async def test_a_pod_whose_labels_change_leaves_and_comes_back(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(service())
        await client.create(pod("one", labels=WEB))
        await addresses_become(client, "web", {"10.244.0.2"})
        for app, addresses in (("none", set[str]()), ("web", {"10.244.0.2"})):
            await client.patch(POD, "one", {"metadata": {"labels": {"app": app}}}, "default")
            await addresses_become(client, "web", addresses)


async def test_two_services_with_the_same_selector_both_have_endpoints(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(service())
        await client.create(service("twin", selector=WEB))
        await client.create(pod("one", labels=WEB))
        await addresses_become(client, "web", {"10.244.0.2"})
        await addresses_become(client, "twin", {"10.244.0.2"})


@pytest.mark.parametrize("fields", [{"selector": None}, {"type": "ExternalName", "externalName": "example.com"}])
async def test_a_service_without_a_selector_is_somebody_elses_matter(client: Client, fields: dict[str, Any]) -> None:
    async with controlled(client):
        await client.create(service(**fields))
        await client.create(service("other"))
        await eventually(lambda: slices_of(client, "other"), "the other Service has its slice")
        assert await slices_of(client, "web") == []


async def test_a_slice_that_somebody_changed_or_deleted_is_set_right(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(service())
        await client.create(pod("one", labels=WEB))
        await addresses_become(client, "web", {"10.244.0.2"})
        [slice_] = await slices_of(client, "web")
        await client.patch(ENDPOINT_SLICE, name(slice_), {"endpoints": []}, "default")
        await addresses_become(client, "web", {"10.244.0.2"})
        await client.delete(ENDPOINT_SLICE, name(slice_), "default")
        await addresses_become(client, "web", {"10.244.0.2"})


async def test_the_trigger_time_is_that_of_the_change(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(service())
        await client.create(pod("one", labels=WEB))
        await addresses_become(client, "web", {"10.244.0.2"})
        begun = time.time()
        await set_ready(client, await client.get(POD, "one", "default"), ready=False)
        await addresses_become(client, "web", set())
        [slice_] = await slices_of(client, "web")
        told = parse_time(annotations(slice_)[LAST_CHANGE_TRIGGER_TIME]).timestamp()
        assert begun - 0.001 <= told <= time.time()


async def test_endpoints_objects_tell_the_same_in_subsets(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(service())
        await client.create(pod("one", labels=WEB))
        await client.create(pod("two", labels=WEB))
        await set_ready(client, (await ready_pods(client, 2))[1], ready=False)

        async def told() -> Object | None:
            found = {name(obj): obj for obj in (await client.list(ENDPOINTS)).items}
            subsets = found.get("web", {}).get("subsets") or [{}]
            return subsets[0] if subsets[0].keys() == {"addresses", "notReadyAddresses", "ports"} else None

        subset = await eventually(told, "one is ready and one is not")
        assert [address["targetRef"]["name"] for address in subset["addresses"]] == ["one"]
        assert [address["targetRef"]["name"] for address in subset["notReadyAddresses"]] == ["two"]
        assert subset["ports"] == [{"name": "", "protocol": "TCP", "port": 80}]


async def test_hints_come_and_go_with_the_traffic_distribution(client: Client) -> None:
    await add_node(client, "a", labels={ZONE_LABEL: "north"})
    async with controlled(client):
        await client.create(service())
        await client.create(pod("one", labels=WEB))
        await addresses_become(client, "web", {"10.244.0.2"})
        zone, node = {"forZones": [{"name": "north"}]}, {"forNodes": [{"name": "a"}]}
        for distribution, hints in (("PreferClose", zone), ("PreferSameNode", zone | node), (None, {})):
            await client.patch(SERVICE, "web", {"spec": {"trafficDistribution": distribution}}, "default")

            async def check(hints: dict[str, Any] = hints) -> bool:
                return [endpoint.get("hints", {}) for endpoint in await endpoints(client, "web")] == [hints]

            await eventually(check, f"the hints are {hints}")


async def test_topology_aware_routing_shares_endpoints_out_by_cpus(client: Client) -> None:
    capacity = {"allocatable": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": "True"}]}
    for node, zone in (("a", "north"), ("b", "south")):
        await add_node(client, node, labels={ZONE_LABEL: zone})
        await client.patch(NODE, node, {"status": capacity}, subresource="status")
    wanted = service()
    wanted["metadata"]["annotations"] = {"service.kubernetes.io/topology-mode": "Auto"}
    async with controlled(client):
        await client.create(wanted)
        for number in range(4):
            await client.create(pod(f"p{number}", "a", labels=WEB))

        async def meant_for(zones: dict[str, int]) -> bool:
            hints = [endpoint.get("hints", {}).get("forZones") for endpoint in await endpoints(client, "web")]
            return Counter(hint[0]["name"] if hint else "" for hint in hints) == zones

        await eventually(lambda: meant_for({"north": 2, "south": 2}), "half of the endpoints are lent")
        await client.patch(NODE, "b", {"metadata": {"labels": {ZONE_LABEL: None}}})
        await eventually(lambda: meant_for({"": 4}), "nobody knows where node b is: no hints")
        await set_node_ready(client, "b", ready=False)
        await add_node(client, "c", labels={ZONE_LABEL: "south"})
        await client.patch(NODE, "c", {"status": capacity}, subresource="status")
        await eventually(lambda: meant_for({"north": 2, "south": 2}), "a node that is not Ready does not count")
        await set_node_ready(client, "b", ready=True)
        await eventually(lambda: meant_for({"": 4}), "it does when it is")

        async def told() -> bool:
            return {"TopologyAwareHintsEnabled", "TopologyAwareHintsDisabled"} <= {
                event["reason"] for event in (await client.list(EVENT)).items
            }

        await eventually(told, "Events tell of both")


async def test_endpoints_keep_the_annotations_of_others(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(service())
        await client.create(pod("one", labels=WEB))
        await addresses_become(client, "web", {"10.244.0.2"})

        async def told() -> Object | None:
            found = [each for each in (await client.list(ENDPOINTS)).items if each.get("subsets")]
            return found[0] if found else None

        assert (
            labels(await eventually(told, "the Endpoints tell it too"))[ENDPOINTS_MANAGED_BY] == "endpoint-controller"
        )
        await client.patch(ENDPOINTS, "web", {"metadata": {"annotations": {"mine": "x"}}}, "default")
        await client.delete(POD, "one", "default")

        async def empty() -> bool:
            found = await client.get(ENDPOINTS, "web", "default")
            return annotations(found) == {"mine": "x"} and not found.get("subsets")

        await eventually(empty, "the Endpoints follow, annotation and all")


async def test_two_hundred_pods_share_slices_of_at_most_a_hundred(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        versions = Informer(client, ENDPOINT_SLICE)
        written = Counter[str]()
        versions.on_change(lambda which: written.update([which.name]))
        await client.create(service())
        begun = time.monotonic()
        await client.create(deployment(203))

        async def complete() -> bool:
            found = await endpoints(client, "web")
            return len(found) == 203 and all(endpoint["conditions"]["ready"] for endpoint in found)

        async with running(versions.run()):
            await eventually(complete, "all pods are endpoints")
        rounds = (time.monotonic() - begun) / PACE_S + 1
        assert max(written.values()) <= rounds, "a wave costs versions by its length, not by its pods"
        assert sorted(len(slice_["endpoints"]) for slice_ in await slices_of(client, "web")) == [3, 100, 100]
        await client.patch(DEPLOYMENT, "web", {"spec": {"replicas": 0}}, "default", subresource="scale")
        await addresses_become(client, "web", set())


CHANGES = st.lists(
    st.tuples(st.sampled_from(["create", "delete", "ready", "unready", "relabel", "disconnect"]), st.integers(0, 4)),
    max_size=20,
)


@given(CHANGES)
@settings(max_examples=25, deadline=None)
def test_any_sequence_of_pod_changes_ends_in_slices_that_say_what_the_pods_are(changes: list[tuple[str, int]]) -> None:
    asyncio.run(_converges(changes))


async def _converges(changes: list[tuple[str, int]]) -> None:
    async with fake() as client, controlled(client):
        assert isinstance(client, FakeClient)
        await add_node(client, "a")
        await client.create(service())
        for change, number in changes:
            await _change(client, change, f"p{number}")
            await asyncio.sleep(0.002 * (number % 2))
        await eventually(lambda: _agree(client), "the slices say what the pods are")


async def _change(client: FakeClient, change: str, which: str) -> None:
    found = {name(obj): obj for obj in (await client.list(POD)).items}
    match change:
        case "disconnect":
            client.disconnect()
        case "create" if which not in found:
            await client.create(pod(which, labels=WEB))
        case "delete" if which in found:
            await client.delete(POD, which, "default")
        case "ready" | "unready" if which in found:
            await set_ready(client, found[which], ready=change == "ready")
        case "relabel" if which in found:
            app = "none" if labels(found[which]) == WEB else "web"
            await client.patch(POD, which, {"metadata": {"labels": {"app": app}}}, "default")


async def _agree(client: FakeClient) -> bool:
    held = (await client.list(POD)).items
    wanted = {
        (uid(obj), is_ready(obj))
        for obj in held
        if labels(obj) == WEB and status(obj).get("podIP") and not is_deleting(obj)
    }
    told = [(e["targetRef"]["uid"], e["conditions"]["ready"]) for e in await endpoints(client, "web")]
    settled = all(spec(obj).get("nodeName") and status(obj).get("podIP") for obj in held)
    return settled and len(told) == len(wanted) and set(told) == wanted


async def test_a_ready_pod_is_in_its_slice_within_milliseconds(client: Client) -> None:
    """Not a promise about a loaded machine: that nothing in between waits on a timer."""
    await add_node(client, "a")
    async with controlled(client, makes_ready=False):
        await client.create(service())
        await client.create(pod("one", labels=WEB))
        await conditions_become(client, ready=False, serving=False, terminating=False)
        slices = Informer(client, ENDPOINT_SLICE)
        async with running(slices.run()):
            await slices.synced.wait()
            written = asyncio.Event()
            slices.on_change(lambda _: written.set())
            begun = time.monotonic()
            await set_ready(client, await client.get(POD, "one", "default"), ready=True)
            await asyncio.wait_for(written.wait(), 5)
            assert time.monotonic() - begun < 2.0
