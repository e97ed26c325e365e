"""The bootstrap directory: complete, private, and stable over repetition."""

from __future__ import annotations

import json
import ssl
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509

from testbed.runtime.bootstrap import agent_names, write_bootstrap
from testbed.topology.spec import ClusterSpec, HostSpec
from tests.unit.agent.specs import cluster

SPEC = cluster()


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_directory_holds_spec_token_and_keys_for_their_owner_only(tmp_path: Path) -> None:
    write_bootstrap(tmp_path / "dir", SPEC)
    assert sorted(content(tmp_path / "dir")) == [
        "agent.crt", "agent.key", "apiserver.crt", "apiserver.key", "ca.crt", "ca.key", "spec.json", "token",
    ]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "dir").iterdir()} == {0o600}
    assert ClusterSpec.from_json(json.loads((tmp_path / "dir/spec.json").read_bytes())) == SPEC


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    write_bootstrap(tmp_path, SPEC)
    before = content(tmp_path)
    write_bootstrap(tmp_path, SPEC)
    assert content(tmp_path) == before


def test_a_changed_host_gets_a_new_certificate_from_the_same_authority(tmp_path: Path) -> None:
    write_bootstrap(tmp_path, SPEC)
    before = content(tmp_path)
    there = HostSpec("there", "ssh://there", "", IPv4Address("198.18.0.3"))
    write_bootstrap(tmp_path, replace(SPEC, hosts=(*SPEC.hosts, there)))
    changed = {name for name, data in content(tmp_path).items() if data != before[name]}
    assert changed == {"agent.crt", "agent.key", "spec.json"}


def test_the_authority_vouches_for_every_name_of_the_api_server(tmp_path: Path) -> None:
    write_bootstrap(tmp_path, SPEC)
    context = ssl.create_default_context(cadata=(tmp_path / "ca.crt").read_text())
    context.load_cert_chain(tmp_path / "apiserver.crt", tmp_path / "apiserver.key")
    certificate = x509.load_pem_x509_certificate((tmp_path / "apiserver.crt").read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes()))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "kubernetes.default.svc.cluster.local" in names.get_values_for_type(x509.DNSName)
    assert IPv4Address("10.96.0.1") in names.get_values_for_type(x509.IPAddress)


def test_the_agent_is_known_by_the_switch_of_each_host() -> None:
    assert agent_names(SPEC) == [IPv4Address("198.18.0.1")]
