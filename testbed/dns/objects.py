"""The cluster's DNS as Kubernetes objects, named as everywhere: Service and Deployment kube-system/kube-dns. Pure.

    knot        knotd, from its configuration in the ConfigMap
    controller  fills it through its control socket; the pod is Ready when everything is there
    unbound     only where the topology forwards names

Each may be killed by itself: a new knotd is filled at once, a new controller finds out what knotd serves and changes
only what has changed. The pod is not Ready meanwhile, for about half a second.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from testbed.api.objects import Object
from testbed.api.wellknown import SYSTEM_NAMESPACE
from testbed.dns.config import DNS_PORT, READY_PATH, READY_PORT, RUN, SOCKET, knot_conf, unbound_conf
from testbed.topology.spec import ClusterSpec

NAME = "kube-dns"
LABELS = {"k8s-app": NAME}
IMAGE = "testbed/dns"
CONFIG_DIRECTORY = "/etc/testbed-dns"
CONFIG_ANNOTATION = "testbed/config-hash"
"""Of the pods: a changed ConfigMap makes new ones."""


def dns_objects(cluster: ClusterSpec) -> list[Object]:
    """What the cluster's DNS consists of; nothing for a cluster without."""
    if not cluster.dns.is_served:
        return []
    config = _configuration(cluster)
    address = str(cluster.services.dns)
    ports = [
        {"name": name, "port": DNS_PORT, "targetPort": DNS_PORT, "protocol": protocol}
        for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))
    ]
    service = {"selector": LABELS, "clusterIP": address, "clusterIPs": [address], "ports": ports}
    return [
        _object("v1", "ConfigMap", data=config),
        _object("v1", "Service", spec=service),
        _object("apps/v1", "Deployment", spec=_deployment(cluster, config)),
    ]


def _configuration(cluster: ClusterSpec) -> dict[str, str]:
    domain, forwarders = cluster.dns.domain, cluster.dns.forward
    if not forwarders:
        return {"knot.conf": knot_conf(domain, is_behind=False)}
    networks = cluster.services.cidr, cluster.network.pod_cidr, cluster.underlay.cidr, cluster.underlay.outside_cidr
    return {
        "knot.conf": knot_conf(domain, is_behind=True),
        "unbound.conf": unbound_conf(domain, networks, forwarders),
    }


def _deployment(cluster: ClusterSpec, config: dict[str, str]) -> Object:
    containers = [_knot(), _controller(cluster)]
    if cluster.dns.forward:
        containers.append(_unbound())
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    pod = {
        "serviceAccountName": NAME,
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 5,
        "containers": containers,
        "volumes": [{"name": "config", "configMap": {"name": NAME}}, {"name": "run", "emptyDir": {}}],
    }
    meta = {"labels": LABELS, "annotations": {CONFIG_ANNOTATION: digest}}
    return {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": {"metadata": meta, "spec": pod}}


def _knot() -> Object:
    ports = [{"name": f"dns-{protocol.lower()}", "containerPort": DNS_PORT, "protocol": protocol} for protocol in _BOTH]
    command = ["knotd", "--config", f"{CONFIG_DIRECTORY}/knot.conf"]
    return _container("knot", command=command, ports=ports, lifecycle=_LINGERS, volumeMounts=[_CONFIG, _RUN])


def _controller(cluster: ClusterSpec) -> Object:
    args = ["--domain", cluster.dns.domain, "--address", str(cluster.services.dns), "--socket", SOCKET]
    probe = {"httpGet": {"path": READY_PATH, "port": READY_PORT}, "periodSeconds": 1}
    return _container("controller", args=args, readinessProbe=probe, volumeMounts=[_RUN])


def _unbound() -> Object:
    command = ["unbound", "-d", "-c", f"{CONFIG_DIRECTORY}/unbound.conf"]
    probe = {"tcpSocket": {"port": DNS_PORT}, "periodSeconds": 1}
    return _container("unbound", command=command, readinessProbe=probe, lifecycle=_LINGERS, volumeMounts=[_CONFIG])


_BOTH = ("UDP", "TCP")
_CONFIG = {"name": "config", "mountPath": CONFIG_DIRECTORY, "readOnly": True}
_RUN = {"name": "run", "mountPath": RUN}
_LINGERS = {"preStop": {"exec": {"command": ["sleep", "1"]}}}
"""Until every node has learned to ask another pod."""


def _container(name: str, **fields: Any) -> Object:
    return {"name": name, "image": IMAGE, **fields}


def _object(version: str, kind: str, **fields: Any) -> Object:
    meta = {"name": NAME, "namespace": SYSTEM_NAMESPACE, "labels": LABELS}
    return {"apiVersion": version, "kind": kind, "metadata": meta, **fields}
