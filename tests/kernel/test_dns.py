"""The cluster's DNS asked for real: knotd and Unbound configured as in their pod, filled from a cluster in memory."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from testbed.api.kinds import ENDPOINT_SLICE
from testbed.api.objects import Object
from testbed.client.fake import FakeClient
from testbed.dns.config import DNS_PORT, RUN, knot_conf, unbound_conf
from testbed.dns.control import connected
from testbed.dns.controller import Controller
from testbed.dns.knot import Knot
from testbed.waiting import wait_until, wait_until_async
from tests.kernel.lab import Lab
from tests.unit.dns.objects import endpoint, external, pod, service, slice_of

DOMAIN = "cluster.local"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PLACE = "tb-e-dns"
OUTSIDE_PORT = 5300
VISIBLE_S = 5.0
LOADED_S = 30.0
"""Bounds; how fast it is, is for the benchmark."""
EXAMPLE = """\
server:
    rundir: {run}
    listen: 127.0.0.1@{port}
database:
    storage: {run}
zone:
  - domain: example.com
    storage: {run}
    file: zone
"""
EXAMPLE_ZONE = """\
$ORIGIN example.com.
$TTL 300
@ SOA ns root 1 60 60 60 60
@ NS ns
ns A 192.0.2.53
db A 192.0.2.7
"""


class Dns:
    """Programs in a namespace, and questions to them."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab, self._directory = lab, directory
        self.running: list[subprocess.Popen[bytes]] = []
        self.knot = Knot(directory / "knot.sock", DOMAIN)

    def start_knotd(self, *, is_behind: bool = False) -> subprocess.Popen[bytes]:
        """knotd with the configuration of the cluster, but for its directory."""
        text = knot_conf(DOMAIN, is_behind=is_behind).replace("/tmp", str(self._directory))
        text = text.replace(RUN, str(self._directory))
        return self.start("knotd", "--config", str(self.file("knot.conf", text)))

    def start_unbound(self) -> None:
        """Unbound before it, forwarding to an example.com of its own."""
        forwarder, networks = IPv4Address("127.0.0.1"), [IPv4Network("10.96.0.0/16"), IPv4Network("10.244.0.0/16")]
        text = unbound_conf(DOMAIN, networks, [forwarder]).replace(
            f"forward-addr: {forwarder}", f"forward-addr: {forwarder}@{OUTSIDE_PORT}"
        )
        self.start("unbound", "-d", "-c", str(self.file("unbound.conf", text)))

    def start_example_com(self) -> None:
        """The world outside."""
        directory = self._directory / "outside"
        directory.mkdir()
        (directory / "zone").write_text(EXAMPLE_ZONE)
        text = EXAMPLE.format(run=directory, port=OUTSIDE_PORT)
        self.start("knotd", "--config", str(self.file("outside.conf", text)))
        self.wait_for(OUTSIDE_PORT)

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """A program that runs until the end of the test."""
        log = (self._directory / "log").open("ab")
        program = self._lab.inside(PLACE, lambda: subprocess.Popen(argv, stdout=log, stderr=log, env={"PATH": PATH}))
        log.close()
        self.running.append(program)
        return program

    def file(self, name: str, text: str) -> Path:
        """A file for a program."""
        path = self._directory / name
        path.write_text(text)
        return path

    def wait_for(self, port: int) -> None:
        """Until somebody answers at that port, be it with an error."""

        def answers() -> bool:
            try:
                self.ask("ns.dns.cluster.local", port=port)
            except OSError:
                return False
            return True

        wait_until(answers, 5.0, f"a server at port {port}")

    def ask(
        self, name: str, kind: str = "A", *, port: int = DNS_PORT, tcp: bool = False, payload: int | None = None
    ) -> dns.message.Message:
        """One question, asked in the namespace. OSError where nobody answers."""
        query = dns.message.make_query(name, kind, use_edns=0 if payload else -1, payload=payload or 0)
        send = dns.query.tcp if tcp else dns.query.udp

        def asked() -> dns.message.Message:
            try:
                return send(query, "127.0.0.1", port=port, timeout=1.0)
            except dns.exception.Timeout:
                raise TimeoutError from None

        return self._lab.inside(PLACE, asked)

    async def until(self, name: str, wanted: set[str] | str, kind: str = "A") -> None:
        """Until the answer has just this data, or this response code."""

        async def check() -> bool:
            try:
                answer = await asyncio.to_thread(self.ask, name, kind)
            except OSError:
                return False
            return wanted in (data_of(answer), code_of(answer))

        await wait_until_async(check, VISIBLE_S, f"{wanted} for {name} {kind}", every_s=0.01)

    def stop(self) -> None:
        """End every program."""
        for program in self.running:
            program.kill()
            program.wait()


def data_of(answer: dns.message.Message) -> set[str]:
    """The data of the answer section."""
    return {rdata.to_text() for rrset in answer.answer for rdata in rrset}


def code_of(answer: dns.message.Message) -> str:
    return dns.rcode.to_text(answer.rcode())


@pytest.fixture
def served(lab: Lab, tmp_path: Path) -> Iterator[Dns]:
    if not shutil.which("knotd", path=PATH):
        pytest.skip("knotd is not installed (Debian: knot)")
    lab.place(PLACE)
    dns_ = Dns(lab, tmp_path)
    try:
        yield dns_
    finally:
        dns_.stop()


@asynccontextmanager
async def followed(dns_: Dns, *objects: Object, resync_s: float = 60.0) -> AsyncIterator[FakeClient]:
    """The controller at work on a cluster with these objects, everything loaded."""
    client = FakeClient()
    for obj in objects:
        await client.create(obj)
    controller = Controller(client, dns_.knot, DOMAIN, "10.96.0.10", resync_s)
    running = asyncio.create_task(controller.run())

    async def is_ready() -> bool:
        return controller.is_ready

    try:
        await wait_until_async(is_ready, LOADED_S, "a filled knotd")
        yield client
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_services_are_answered(served: Dns) -> None:
    served.start_knotd()
    async with followed(served, service(), external("db.example.com"), external(f"web.default.svc.{DOMAIN}", "alias")):
        web = f"web.default.svc.{DOMAIN}"
        answer = served.ask(web)
        assert (data_of(answer), answer.answer[0].ttl) == ({"10.96.4.5"}, 5)
        assert answer.flags & dns.flags.AA
        assert data_of(served.ask(f"_http._tcp.{web}", "SRV")) == {f"0 100 80 {web}."}
        assert data_of(served.ask("5.4.96.10.in-addr.arpa", "PTR")) == {f"{web}."}
        assert data_of(served.ask(f"db.default.svc.{DOMAIN}")) == {"db.example.com."}
        assert data_of(served.ask(f"alias.default.svc.{DOMAIN}")) == {f"{web}.", "10.96.4.5"}
        assert data_of(served.ask(f"dns-version.{DOMAIN}", "TXT")) == {'"1.1.0"'}


async def test_a_name_in_any_case_is_the_same_name_and_comes_back_as_it_was_asked(served: Dns) -> None:
    served.start_knotd()
    async with followed(served, service()):
        answer = served.ask(f"WeB.DeFaUlT.sVc.{DOMAIN}")
        assert data_of(answer) == {"10.96.4.5"}
        assert str(answer.question[0].name).startswith("WeB.DeFaUlT")


async def test_what_exists_without_a_record_is_no_error_and_what_does_not_exist_is(served: Dns) -> None:
    served.start_knotd()
    async with followed(served, service()):
        for name, kind in ((f"web.default.svc.{DOMAIN}", "AAAA"), (f"_tcp.web.default.svc.{DOMAIN}", "A")):
            answer = served.ask(name, kind)
            assert (code_of(answer), data_of(answer)) == ("NOERROR", set())
            assert answer.authority[0].rdtype == dns.rdatatype.SOA
        for name in ("nope.default.svc", "web.other.svc", "x.web.default.svc", "web.default"):
            assert code_of(served.ask(f"{name}.{DOMAIN}")) == "NXDOMAIN"
        assert code_of(served.ask("example.com")) == "REFUSED"


async def test_names_follow_what_happens_to_endpoints(served: Dns) -> None:
    served.start_knotd()
    name = f"web.default.svc.{DOMAIN}"
    async with followed(served, service(ip="None"), slice_of(endpoint("10.244.1.2", "one"))) as client:
        await served.until(name, {"10.244.1.2"})
        slice_ = await client.get(ENDPOINT_SLICE, "web-1", "default")
        slice_["endpoints"] = [endpoint("10.244.1.2", "one"), endpoint("10.244.1.3", "two")]
        slice_ = await client.update(slice_)
        await served.until(name, {"10.244.1.2", "10.244.1.3"})
        await served.until(f"two.{name}", {"10.244.1.3"})
        slice_["endpoints"] = [endpoint("10.244.1.2", "one", ready=False)]
        await client.update(slice_)
        await served.until(name, "NXDOMAIN")
        await client.create(pod("10.244.1.9"))


async def test_an_alias_becomes_a_service_and_an_alias_again(served: Dns) -> None:
    """CNAME and A never stand side by side, in either order of edits."""
    served.start_knotd()
    name = f"web.default.svc.{DOMAIN}"
    async with followed(served, external("one.example.com", "web")) as client:
        for obj, wanted in (
            (external("two.example.com", "web"), "two.example.com."),
            (service(), "10.96.4.5"),
            (external("two.example.com", "web"), "two.example.com."),
        ):
            await client.update(obj)
            await served.until(name, {wanted})


async def test_a_long_answer_is_cut_for_udp_and_whole_over_tcp(served: Dns) -> None:
    served.start_knotd()
    addresses = {f"10.244.{i}.{j}" for i in range(2) for j in range(1, 40)}
    name = f"web.default.svc.{DOMAIN}"
    async with followed(served, service(ip="None"), slice_of(*map(endpoint, addresses))):
        short = served.ask(name)
        assert short.flags & dns.flags.TC
        assert len(short.to_wire()) <= 512
        assert data_of(served.ask(name, tcp=True)) == addresses
        wide = served.ask(name, payload=1232)
        assert wide.edns == 0
        assert len(wide.to_wire()) <= 1232
        assert served.ask(name).edns == -1, "who does not speak EDNS is not answered in it"


async def test_a_new_knotd_is_filled_at_once(served: Dns) -> None:
    name = f"web.default.svc.{DOMAIN}"
    first = served.start_knotd()
    async with followed(served, service()) as client:
        first.send_signal(signal.SIGKILL)
        first.wait()
        await client.update(service(ip="10.96.4.6"))
        served.start_knotd()
        served.wait_for(DNS_PORT)
        await served.until(name, {"10.96.4.6"})


async def test_a_new_controller_finds_knotd_serving_and_changes_only_what_has_changed(served: Dns) -> None:
    name = f"web.default.svc.{DOMAIN}"
    served.start_knotd()
    async with followed(served, service(), service("gone", ip="10.96.4.6")):
        pass
    assert data_of(served.ask(name)) == {"10.96.4.5"}
    serial = await served.knot.serial(f"{DOMAIN}.")
    async with followed(served, service(), service("new", ip="10.96.4.7")):
        assert data_of(served.ask(name)) == {"10.96.4.5"}
        assert code_of(served.ask(f"gone.default.svc.{DOMAIN}")) == "NXDOMAIN"
        assert data_of(served.ask(f"new.default.svc.{DOMAIN}")) == {"10.96.4.7"}
        assert int(await served.knot.serial(f"{DOMAIN}.")) == int(serial) + 1


async def test_what_a_person_changes_is_put_right(served: Dns) -> None:
    served.start_knotd()
    zone, name = f"{DOMAIN}.", f"web.default.svc.{DOMAIN}."
    async with followed(served, service(), resync_s=0.2):
        async with connected(served.knot.socket) as control:
            await control.ask("zone-begin", zone)
            await control.ask("zone-unset", zone, owner=name)
            await control.ask("zone-commit", zone)
        await served.until(name, {"10.96.4.5"})


async def test_a_record_that_knotd_does_not_take_stands_in_nobodys_way(served: Dns) -> None:
    served.start_knotd()
    async with followed(served, external("no..name", "bad"), service()) as client:
        assert data_of(served.ask(f"web.default.svc.{DOMAIN}")) == {"10.96.4.5"}
        await client.create(external("not.a name", "worse"))
        await client.create(service("late", ip="10.96.4.6"))
        await served.until(f"late.default.svc.{DOMAIN}", {"10.96.4.6"})


async def test_a_transaction_that_somebody_left_open_is_given_up(served: Dns) -> None:
    served.start_knotd()
    async with followed(served) as client:
        async with connected(served.knot.socket) as control:
            await control.ask("zone-begin", f"{DOMAIN}.")
        await client.create(service())
        await served.until(f"web.default.svc.{DOMAIN}", {"10.96.4.5"})


async def test_other_names_are_forwarded_and_aliases_that_leave_are_followed(served: Dns) -> None:
    if not shutil.which("unbound", path=PATH):
        pytest.skip("unbound is not installed (Debian: unbound)")
    served.start_example_com()
    served.start_knotd(is_behind=True)
    async with followed(served, service(), external("db.example.com")) as client:
        served.start_unbound()
        served.wait_for(DNS_PORT)
        assert data_of(served.ask("db.example.com")) == {"192.0.2.7"}
        assert data_of(served.ask(f"db.default.svc.{DOMAIN}")) == {"db.example.com.", "192.0.2.7"}
        assert data_of(served.ask("5.4.96.10.in-addr.arpa", "PTR")) == {f"web.default.svc.{DOMAIN}."}
        assert code_of(served.ask(f"nope.default.svc.{DOMAIN}")) == "NXDOMAIN"
        await client.update(service(ip="10.96.4.6"))
        await served.until(f"web.default.svc.{DOMAIN}", {"10.96.4.6"})


async def test_a_dead_forwarder_and_a_new_knotd_are_no_matter_for_the_clusters_names(served: Dns) -> None:
    if not shutil.which("unbound", path=PATH):
        pytest.skip("unbound is not installed (Debian: unbound)")
    name = f"web.default.svc.{DOMAIN}"
    first = served.start_knotd(is_behind=True)
    async with followed(served, service()):
        served.start_unbound()
        served.wait_for(DNS_PORT)
        await served.until(name, {"10.96.4.5"})
        with suppress(TimeoutError):
            served.ask("www.example.org")
        assert data_of(served.ask(name)) == {"10.96.4.5"}
        first.send_signal(signal.SIGKILL)
        first.wait()
        served.start_knotd(is_behind=True)
        await served.until(name, {"10.96.4.5"})
