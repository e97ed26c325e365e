"""The rules of the DNS specification, one test each; the numbers are its sections."""

from __future__ import annotations

from testbed.api.objects import Object
from testbed.dns.records import Record, pod_records, service_records, zone_of, zone_records, zones
from tests.unit.dns.objects import HTTP, endpoint, external, pod, service, slice_of

DOMAIN = "cluster.local"
WEB = "web.default.svc.cluster.local."


def of(service: Object, *slices: Object) -> set[tuple[str, str, str]]:
    return {(owner, kind, data) for owner, kind, data in service_records(service, slices, DOMAIN)}


def owners(records: set[tuple[str, str, str]], kind: str) -> set[str]:
    return {owner for owner, found, _ in records if found == kind}


def test_2_2_the_zone_tells_the_version_of_the_specification() -> None:
    assert Record("dns-version.cluster.local.", "TXT", '"1.1.0"') in zone_records(DOMAIN, "10.96.0.10")


def test_every_zone_has_a_name_server_that_has_an_address() -> None:
    found = zone_records(DOMAIN, "10.96.0.10")
    assert {record.owner for record in found if record.type == "NS"} == set(zones(DOMAIN))
    assert Record("ns.dns.cluster.local.", "A", "10.96.0.10") in found


def test_2_3_1_a_service_has_its_cluster_ips() -> None:
    dual = of(service(clusterIPs=["10.96.4.5", "fd00::5"]))
    assert {(WEB, "A", "10.96.4.5"), (WEB, "AAAA", "fd00::5")} <= dual


def test_2_3_2_named_ports_have_srv_records_and_others_have_none() -> None:
    ports = [HTTP, {"name": "dns", "port": 53, "protocol": "UDP"}]
    assert {
        (f"_http._tcp.{WEB}", "SRV", f"0 100 80 {WEB}"),
        (f"_dns._udp.{WEB}", "SRV", f"0 100 53 {WEB}"),
    } <= of(service(ports=ports))
    assert not owners(of(service(ports=[{"port": 80}])), "SRV")


def test_2_3_3_a_cluster_ip_has_a_name() -> None:
    assert ("5.4.96.10.in-addr.arpa.", "PTR", WEB) in of(service())


def test_a_service_that_waits_for_its_address_has_no_record_yet() -> None:
    assert of(service(ip="", clusterIPs=[])) == set()


def test_endpoints_of_a_service_with_a_cluster_ip_have_no_names() -> None:
    assert of(service(), slice_of(endpoint("10.244.1.2", "one"))) == of(service())


def test_2_4_1_a_headless_service_has_the_addresses_of_its_ready_endpoints() -> None:
    slices = (
        slice_of(endpoint("10.244.1.2"), endpoint("10.244.1.3", ready=False)),
        slice_of(endpoint("10.244.1.4", ready=None), number=2),
    )
    found = of(service(ip="None"), *slices)
    assert {data for owner, kind, data in found if (owner, kind) == (WEB, "A")} == {"10.244.1.2", "10.244.1.4"}


def test_2_4_1_a_headless_service_with_none_ready_does_not_exist() -> None:
    assert of(service(ip="None"), slice_of(endpoint("10.244.1.3", "one", ready=False))) == set()
    assert of(service(ip="None")) == set()


def test_2_4_1_publish_not_ready_addresses_counts_all_as_ready() -> None:
    found = of(service(ip="None", publishNotReadyAddresses=True), slice_of(endpoint("10.244.1.3", ready=False)))
    assert (WEB, "A", "10.244.1.3") in found


def test_2_4_1_an_endpoint_is_known_by_its_hostname_or_by_its_address() -> None:
    found = of(service(ip="None"), slice_of(endpoint("10.244.1.2", "one"), endpoint("10.244.1.3")))
    assert owners(found, "A") == {WEB, f"one.{WEB}", f"10-244-1-3.{WEB}"}


def test_2_4_1_one_hostname_may_have_several_addresses() -> None:
    found = of(service(ip="None"), slice_of(endpoint("10.244.1.2", "one"), endpoint("10.244.1.3", "one")))
    assert {data for owner, _, data in found if owner == f"one.{WEB}"} == {"10.244.1.2", "10.244.1.3"}


def test_2_4_1_endpoints_of_the_other_family_have_aaaa_records() -> None:
    found = of(service(ip="None"), slice_of(endpoint("fd00::5"), addressType="IPv6"))
    assert {(WEB, "AAAA", "fd00::5"), (f"fd00--5.{WEB}", "AAAA", "fd00::5")} <= found


def test_2_4_2_a_headless_service_has_an_srv_record_for_each_endpoint_and_named_port() -> None:
    ports = [HTTP, {"name": "metrics", "port": 9090, "protocol": "TCP"}, {"port": 1, "protocol": "TCP"}]
    found = of(service(ip="None"), slice_of(endpoint("10.244.1.2", "one"), endpoint("10.244.1.3", "two"), ports=ports))
    assert {record for record in found if record[1] == "SRV"} == {
        (f"_{name}._tcp.{WEB}", "SRV", f"0 100 {port} {host}.{WEB}")
        for name, port in (("http", 80), ("metrics", 9090))
        for host in ("one", "two")
    }


def test_2_4_2_the_target_of_every_srv_record_has_an_address() -> None:
    found = of(service(ip="None"), slice_of(endpoint("10.244.1.2", "one"), endpoint("10.244.1.3")))
    assert {data.split()[3] for _, kind, data in found if kind == "SRV"} <= owners(found, "A")


def test_2_4_3_an_endpoint_has_its_hostname_as_its_name() -> None:
    found = of(service(ip="None"), slice_of(endpoint("10.244.1.2", "one")))
    assert ("2.1.244.10.in-addr.arpa.", "PTR", f"one.{WEB}") in found


def test_2_5_an_external_name_is_an_alias() -> None:
    assert of(external("DB.Example.com")) == {("db.default.svc.cluster.local.", "CNAME", "db.example.com.")}
    assert of(external("db.example.com.")) == of(external("db.example.com"))


def test_an_endpoint_by_name_has_no_address_to_tell() -> None:
    assert of(service(ip="None"), slice_of(endpoint("db.example.com"), addressType="FQDN")) == set()


def test_a_pod_has_a_name_made_of_its_address_while_it_may_run() -> None:
    owner = "10-244-1-2.default.pod.cluster.local."
    assert pod_records(pod("10.244.1.2"), DOMAIN) == {Record(owner, "A", "10.244.1.2")}
    assert pod_records(pod("10.244.1.2", phase="Succeeded"), DOMAIN) == frozenset()
    assert pod_records(pod(""), DOMAIN) == frozenset()


def test_every_record_is_in_one_of_the_zones() -> None:
    served = zones(DOMAIN)
    dual = service(clusterIPs=["10.96.4.5", "fd00::5"])
    found = {zone_of(record, served) for record in service_records(dual, [], DOMAIN)}
    assert found == set(served)
    assert {zone_of(record, served) for record in zone_records(DOMAIN, "10.96.0.10")} == set(served)
