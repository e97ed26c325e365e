"""The bootstrap directory of a cluster: what its daemons must know before they can ask the API.

    spec.json                    the ClusterSpec
    token                        the bearer token of administrator, agents and daemons
    ca.crt ca.key                the cluster's own authority (ECDSA P-256)
    apiserver.crt apiserver.key  the API server, on loopback, on the underlay and as Service kubernetes
    agent.crt agent.key          the host agents, each at its switch's underlay address

Every file is written whole or not at all. Authority and token, once made, stay: who trusts the cluster keeps
trusting it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testbed.topology.spec import ClusterSpec

VALID_FOR = timedelta(days=3650)
"""A testbed is thrown away long before; the notBefore of an hour ago forgives clocks that differ between hosts."""

Name = str | IPv4Address


@dataclass(frozen=True)
class Authority:
    """The cluster's certificate authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def write_bootstrap(directory: Path, spec: ClusterSpec) -> None:
    """Make `directory` (mode 0700) hold everything for this spec; a second call with the same spec changes nothing."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_if_changed(directory / "spec.json", json.dumps(spec.to_json(), indent=1).encode())
    if not (directory / "token").exists():
        _write(directory / "token", secrets.token_urlsafe(32).encode())
    authority = _ensure_authority(directory, spec.name)
    _ensure_server(directory, "apiserver", authority, apiserver_names(spec))
    _ensure_server(directory, "agent", authority, agent_names(spec))


def apiserver_names(spec: ClusterSpec) -> list[Name]:
    """Every name and address under which the API server is reached."""
    services = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    return [
        "localhost",
        *services,
        f"kubernetes.default.svc.{spec.dns.domain}",
        IPv4Address("127.0.0.1"),
        spec.underlay.control_plane,
        spec.services.kubernetes,
    ]


def agent_names(spec: ClusterSpec) -> list[Name]:
    """The switch address of every host, where its agent listens."""
    return [host.switch for host in spec.hosts]


def _ensure_authority(directory: Path, cluster: str) -> Authority:
    certificate_file, key_file = directory / "ca.crt", directory / "ca.key"
    if certificate_file.exists() and key_file.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return Authority(x509.load_pem_x509_certificate(certificate_file.read_bytes()), key)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"testbed {cluster} CA")
    builder = _builder(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = builder.add_extension(_key_usage(is_authority=True), critical=True).sign(key, hashes.SHA256())
    _write(key_file, _key_pem(key))
    _write(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(certificate, key)


def _ensure_server(directory: Path, name: str, authority: Authority, names: list[Name]) -> None:
    certificate_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
    if certificate_file.exists() and key_file.exists() and _serves(certificate_file.read_bytes(), names):
        return
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate.subject
    certificate = (
        _builder(_name(f"testbed {name}"), issuer, key)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    _write(key_file, _key_pem(key))
    _write(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))


def _serves(pem: bytes, names: list[Name]) -> bool:
    certificate = x509.load_pem_x509_certificate(pem)
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(held) == set(_general_names(names))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALID_FOR)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(names: Iterable[Name]) -> list[x509.GeneralName]:
    return [x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(ip_address(str(name))) for name in names]


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_if_changed(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        _write(path, content)


def _write(path: Path, content: bytes) -> None:
    """Write beside, then rename: a reader, and a crash, see the old file or the new one; only the owner sees either."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.touch(mode=0o600)
    beside.write_bytes(content)
    beside.replace(path)
