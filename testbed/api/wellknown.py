"""Names that components agree on through the API: labels and annotations, theirs and ours, and fixed ports."""

from __future__ import annotations

# Kubernetes' own.
HOSTNAME_LABEL = "kubernetes.io/hostname"
ZONE_LABEL = "topology.kubernetes.io/zone"
NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"
SKIP_MIRROR_LABEL = "endpointslice.kubernetes.io/skip-mirror"
SERVICE_PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
EXCLUDE_BALANCERS_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
LAST_CHANGE_TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
REVISION_ANNOTATION = "deployment.kubernetes.io/revision"
POD_TEMPLATE_HASH_LABEL = "pod-template-hash"

# What nodes tell each other, as annotations of their Node object (flannel does the same).
HOST_LABEL = "testbed/host"
"""Label of a Node: the host (machine) whose agent runs its pods."""
ROLE_LABEL = "testbed/role"
"""Label of a Node: `worker`, or `external` for a node outside the cluster."""
UNDERLAY_ANNOTATION = "testbed/underlay-address"
VTEP_MAC_ANNOTATION = "testbed/vtep-mac"
BACKEND_ANNOTATION = "testbed/backend"

# What a node daemon reports: Lease kube-system/node-daemon-NODE carries the resourceVersion up to which Services and
# EndpointSlices are in the node's kernel; the Node's condition NetworkUnavailable=False says that full-size
# don't-fragment packets reached every other node.
DAEMON_LEASE_PREFIX = "node-daemon-"
SYNCED_ANNOTATION = "testbed/synced-resource-version"

SYSTEM_NAMESPACE = "kube-system"
LEASE_NAMESPACE = "kube-node-lease"
CLUSTER_CONFIG_MAP = "testbed"
"""ConfigMap kube-system/testbed; its key `spec.json` is the ClusterSpec that everybody follows."""

EXEC_SUBPROTOCOL = "v5.channel.k8s.io"
"""Of the WebSockets of exec, from the client over the API server to the agent (KEP-4006)."""
SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Of generated names and hashes: no vowels, no look-alikes, so that none spells a word (apimachinery util/rand)."""

SERVICE_ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the programs of a pod find `token`, `ca.crt` and `namespace`, by which they reach the API."""

API_PORT = 6443
AGENT_PORT = 10250
METRICS_PORT = 10249
"""Of every node's proxy: figures, and what it does with a Service."""
HEALTH_PORT = 10256
"""Of every node's proxy, for those that only ask whether it is well."""
VXLAN_PORT = 8472
