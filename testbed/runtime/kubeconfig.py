"""A kubeconfig, made from the running control plane whenever it is asked for: no copy of it is kept."""

from __future__ import annotations

import base64

from testbed.runtime.protocol import Endpoint

TEMPLATE = """\
apiVersion: v1
kind: Config
clusters:
  - name: {name}
    cluster:
      server: {url}
      certificate-authority-data: {ca}
users:
  - name: {name}
    user:
      token: {token}
contexts:
  - name: {name}
    context:
      cluster: {name}
      user: {name}
current-context: {name}
"""


def kubeconfig_of(cluster: str, endpoint: Endpoint) -> str:
    """The kubeconfig of a cluster's administrator."""
    ca = base64.b64encode(endpoint.ca).decode()
    return TEMPLATE.format(name=f"testbed-{cluster}", url=endpoint.url, ca=ca, token=endpoint.token)
