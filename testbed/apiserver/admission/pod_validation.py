"""What Kubernetes refuses of a pod (`pkg/apis/core/validation`), for the fields that are served."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbed.api.objects import Object, spec
from testbed.apiserver.admission import names
from testbed.apiserver.admission.networks import ip_address
from testbed.apiserver.refusals import Cause, duplicate, forbidden_field, invalid, required, unsupported

Fields = Mapping[str, Any]

PROTOCOLS = ("SCTP", "TCP", "UDP")
RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
PROBE_ACTIONS = ("exec", "httpGet", "tcpSocket", "grpc")
HOOKS = ("postStart", "preStop")
HOOK_ACTIONS = ("exec", "httpGet", "sleep", "tcpSocket")
NOT_SERVED = {
    "grpc": "the agent asks by exec, httpGet or tcpSocket",
    "tcpSocket": "a hook acts by exec, httpGet or sleep",
    "stopSignal": "containers end by the signal of their image",
    "restartPolicyRules": "containers are restarted by restartPolicy alone",
}
"""Fields that Kubernetes would obey, and that must not be ignored in silence."""
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
CHANGEABLE = (
    "spec.containers[*].image,spec.initContainers[*].image,spec.activeDeadlineSeconds,spec.tolerations (only additions "
    "to existing tolerations)"
)


def validate_pod(pod: Object) -> Iterator[Cause]:
    """Mistakes of a new pod."""
    yield from validate_pod_spec(spec(pod), "spec")


def validate_pod_update(pod: Object, old: Object) -> Iterator[Cause]:
    """A running pod keeps its spec, but for images, deadline and further tolerations; a node may be given once."""
    yield from validate_pod_spec(spec(pod), "spec")
    if _fixed(spec(pod), spec(old)) != _fixed(spec(old), spec(old)):
        yield forbidden_field("spec", f"pod updates may not change fields other than {CHANGEABLE}")


def validate_pod_spec(pod: Fields, field: str) -> Iterator[Cause]:
    """Mistakes of a pod's spec, or of a template's."""
    containers = pod.get("containers", [])
    if not containers:
        yield required(f"{field}.containers")
    yield from _named_once([*containers, *pod.get("initContainers", [])], f"{field}.containers")
    yield from _named_once(pod.get("volumes", []), f"{field}.volumes")
    volumes = {volume.get("name") for volume in pod.get("volumes", [])}
    for part in ("containers", "initContainers"):
        for index, container in enumerate(pod.get(part, [])):
            yield from _container(container, volumes, f"{field}.{part}[{index}]")
            yield from _life(container, pod, f"{field}.{part}[{index}]", is_init=part == "initContainers")
            if pod.get("hostNetwork"):
                yield from _host_network_ports(container, f"{field}.{part}[{index}]")
    yield from _host_ports_once(containers, f"{field}.containers")
    yield from _one_of(pod, "restartPolicy", RESTART_POLICIES, field)
    yield from _one_of(pod, "dnsPolicy", DNS_POLICIES, field)
    yield from _not_negative(pod, ("terminationGracePeriodSeconds",), field)
    yield from names.check_labels(pod.get("nodeSelector", {}), f"{field}.nodeSelector")
    for name in ("hostname", "subdomain"):
        if pod.get(name):
            yield from names.checked(names.DNS_LABEL, pod[name], f"{field}.{name}")
    yield from _dns(pod, field)
    yield from _affinity(pod.get("affinity", {}), f"{field}.affinity")


def _container(container: Fields, volumes: set[Any], field: str) -> Iterator[Cause]:
    image = container.get("image", "")
    if not image:
        yield required(f"{field}.image")
    elif image != image.strip():
        yield invalid(f"{field}.image", image, "must not have leading or trailing whitespace")
    yield from _one_of(container, "imagePullPolicy", PULL_POLICIES, field)
    yield from _ports(container.get("ports", []), f"{field}.ports")
    for index, variable in enumerate(container.get("env", [])):
        yield from _variable(variable, f"{field}.env[{index}]")
    yield from _mounts(container.get("volumeMounts", []), volumes, f"{field}.volumeMounts")


def _ports(ports: Sequence[Fields], field: str) -> Iterator[Cause]:
    taken = set()
    for index, port in enumerate(ports):
        at = f"{field}[{index}]"
        if name := port.get("name"):
            yield from names.port_name(name, f"{at}.name")
            if name in taken:
                yield duplicate(f"{at}.name", name)
            taken.add(name)
        if not port.get("containerPort"):
            yield required(f"{at}.containerPort")
        else:
            yield from port_number(port["containerPort"], f"{at}.containerPort")
        if port.get("hostPort"):
            yield from port_number(port["hostPort"], f"{at}.hostPort")
        if port.get("hostIP"):
            yield from ip_address(port["hostIP"], f"{at}.hostIP")
        yield from _one_of(port, "protocol", PROTOCOLS, at)


def port_number(value: int, field: str) -> Iterator[Cause]:
    """A port is 1 to 65535."""
    if not 1 <= value <= 65535:
        yield invalid(field, value, "must be between 1 and 65535, inclusive")


def _variable(variable: Fields, field: str) -> Iterator[Cause]:
    if not variable.get("name"):
        yield required(f"{field}.name")
    else:
        yield from names.checked(names.ENV_NAME, variable["name"], f"{field}.name")
    source = variable.get("valueFrom")
    if source is not None and variable.get("value"):
        yield invalid(f"{field}.valueFrom", "", "may not be specified when `value` is not empty")
    if source is not None and len(source) != 1:
        yield invalid(f"{field}.valueFrom", "", "must specify exactly one of the sources")


def _mounts(mounts: Sequence[Fields], volumes: set[Any], field: str) -> Iterator[Cause]:
    paths = set()
    for index, mount in enumerate(mounts):
        at, path = f"{field}[{index}]", mount.get("mountPath")
        if mount.get("name") not in volumes:
            yield Cause(f"{at}.name", "FieldValueNotFound", f'Not found: "{mount.get("name", "")}"')
        if not path:
            yield required(f"{at}.mountPath")
        elif path in paths:
            yield invalid(f"{at}.mountPath", path, "must be unique")
        paths.add(path)


def _life(container: Fields, pod: Fields, field: str, *, is_init: bool) -> Iterator[Cause]:
    """How a container is watched, begun, ended and begun again."""
    own, is_sidecar = container.get("restartPolicy"), is_init and container.get("restartPolicy") == "Always"
    if own is not None and not is_init:
        yield forbidden_field(f"{field}.restartPolicy", "may not be set for non-init containers")
    elif own is not None and not is_sidecar:
        yield unsupported(f"{field}.restartPolicy", own, ("Always",))
    if "restartPolicyRules" in container:
        yield forbidden_field(f"{field}.restartPolicyRules", NOT_SERVED["restartPolicyRules"])
    for part in (*PROBES, "lifecycle"):
        if part in container and is_init and not is_sidecar:
            yield forbidden_field(f"{field}.{part}", "may not be set for init containers without restartPolicy=Always")
        elif part in container and part in PROBES:
            yield from _probe(container[part], part, f"{field}.{part}")
        elif part in container:
            grace_s = pod.get("terminationGracePeriodSeconds", 30)
            yield from _lifecycle(container["lifecycle"], grace_s, f"{field}.lifecycle")


def _probe(probe: Fields, kind: str, field: str) -> Iterator[Cause]:
    yield from _handler(probe, PROBE_ACTIONS, field, refused="grpc")
    yield from _not_negative(probe, ("initialDelaySeconds", "timeoutSeconds", "periodSeconds"), field)
    yield from _not_negative(probe, ("successThreshold", "failureThreshold"), field)
    if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        yield invalid(f"{field}.successThreshold", probe["successThreshold"], "must be 1")
    if (grace_s := probe.get("terminationGracePeriodSeconds")) is None:
        return
    if kind == "readinessProbe":
        yield invalid(f"{field}.terminationGracePeriodSeconds", grace_s, "must not be set for readinessProbes")
    elif grace_s < 1:
        yield invalid(f"{field}.terminationGracePeriodSeconds", grace_s, "must be greater than 0")


def _lifecycle(lifecycle: Fields, grace_s: int, field: str) -> Iterator[Cause]:
    if "stopSignal" in lifecycle:
        yield forbidden_field(f"{field}.stopSignal", NOT_SERVED["stopSignal"])
    for hook in HOOKS:
        if hook not in lifecycle:
            continue
        yield from _handler(lifecycle[hook], HOOK_ACTIONS, f"{field}.{hook}", refused="tcpSocket")
        seconds = lifecycle[hook].get("sleep", {}).get("seconds", 0)
        if not 0 <= seconds <= grace_s:
            rule = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_s})"
            yield invalid(f"{field}.{hook}.sleep", seconds, rule)


def _handler(handler: Fields, kinds: Sequence[str], field: str, *, refused: str) -> Iterator[Cause]:
    """What a probe or hook does: one thing."""
    actions = [action for action in kinds if action in handler]
    if not actions:
        yield required(field, "must specify a handler type")
    for action in actions[1:]:
        yield forbidden_field(f"{field}.{action}", "may not specify more than 1 handler type")
    for action in actions:
        if action == refused:
            yield forbidden_field(f"{field}.{action}", f"not served by the testbed: {NOT_SERVED[refused]}")
        elif action == "exec":
            if not handler["exec"].get("command"):
                yield required(f"{field}.exec.command")
        elif action != "sleep":
            yield from _port_of_probe(handler[action], f"{field}.{action}.port")


def _port_of_probe(action: Fields, field: str) -> Iterator[Cause]:
    port = action.get("port")
    if port is None:
        yield required(field)
    else:
        yield from port_or_name(port, field)


def port_or_name(port: int | str, field: str) -> Iterator[Cause]:
    """A port's number, or the name of a container's port."""
    if isinstance(port, int):
        yield from port_number(port, field)
    else:
        yield from names.port_name(port, field)


def _host_network_ports(container: Fields, field: str) -> Iterator[Cause]:
    for index, port in enumerate(container.get("ports", [])):
        if port.get("hostPort") != port.get("containerPort"):
            yield invalid(
                f"{field}.ports[{index}].hostPort", port.get("hostPort", 0),
                "must match `containerPort` when `hostNetwork` is true",
            )  # fmt: skip


def _host_ports_once(containers: Sequence[Fields], field: str) -> Iterator[Cause]:
    taken = set()
    for number, container in enumerate(containers):
        for index, port in enumerate(container.get("ports", [])):
            if not port.get("hostPort"):
                continue
            which = (port.get("hostIP", ""), port["hostPort"], port.get("protocol"))
            if which in taken:
                yield duplicate(f"{field}[{number}].ports[{index}].hostPort", f"{which[0]}/{which[1]}/{which[2]}")
            taken.add(which)


def _dns(pod: Fields, field: str) -> Iterator[Cause]:
    config = pod.get("dnsConfig", {})
    if pod.get("dnsPolicy") == "None" and not config.get("nameservers"):
        yield required(
            f"{field}.dnsConfig.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
        )
    for index, address in enumerate(config.get("nameservers", [])):
        yield from ip_address(address, f"{field}.dnsConfig.nameservers[{index}]")
    for index, alias in enumerate(pod.get("hostAliases", [])):
        yield from ip_address(alias.get("ip", ""), f"{field}.hostAliases[{index}].ip")


def _affinity(affinity: Fields, field: str) -> Iterator[Cause]:
    """What must hold when the pod is scheduled. Gt and Lt, which Kubernetes has for nodes, are not served."""
    node = affinity.get("nodeAffinity", {}).get(REQUIRED)
    at = f"{field}.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
    if node is not None and not node.get("nodeSelectorTerms"):
        yield required(at, "must have at least one node selector term")
    for index, term in enumerate((node or {}).get("nodeSelectorTerms", [])):
        for part in ("matchExpressions", "matchFields"):
            yield from names.expressions(term.get(part, []), f"{at}[{index}].{part}")
    for kind in ("podAffinity", "podAntiAffinity"):
        for index, term in enumerate(affinity.get(kind, {}).get(REQUIRED, [])):
            at = f"{field}.{kind}.{REQUIRED}[{index}]"
            yield from names.label_selector(term.get("labelSelector", {}), f"{at}.labelSelector")
            if not term.get("topologyKey"):
                yield required(f"{at}.topologyKey", "can not be empty")


def _named_once(parts: Sequence[Fields], field: str) -> Iterator[Cause]:
    taken = set()
    for index, part in enumerate(parts):
        name = part.get("name", "")
        if not name:
            yield required(f"{field}[{index}].name")
            continue
        yield from names.checked(names.DNS_LABEL, name, f"{field}[{index}].name")
        if name in taken:
            yield duplicate(f"{field}[{index}].name", name)
        taken.add(name)


def _one_of(part: Fields, name: str, choices: Sequence[str], field: str) -> Iterator[Cause]:
    if (value := part.get(name)) is not None and value not in choices:
        yield unsupported(f"{field}.{name}", value, sorted(choices))


def _not_negative(part: Fields, fields: Sequence[str], field: str) -> Iterator[Cause]:
    for name in fields:
        if part.get(name, 0) < 0:
            yield invalid(f"{field}.{name}", part[name], "must be greater than or equal to 0")


def _fixed(pod: Fields, old: Fields) -> dict[str, Any]:
    """The spec without what may change; a first nodeName passes for none, which is how a scheduler binds by update."""
    fixed = dict(pod)
    for free in ("activeDeadlineSeconds", "tolerations"):
        fixed.pop(free, None)
    if not old.get("nodeName"):
        fixed.pop("nodeName", None)
    for part in ("containers", "initContainers"):
        if part in fixed:
            fixed[part] = [{**container, "image": "", "imagePullPolicy": ""} for container in fixed[part]]
    return fixed
