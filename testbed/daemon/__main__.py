"""`python -m testbed.daemon ROLE …`: one door for every daemon; each role imports only what it needs."""

from __future__ import annotations

import importlib
import sys

ROLES = {
    "control-plane": "testbed.daemon.control_plane",
    "agent": "testbed.daemon.agent",
    "node-daemon": "testbed.daemon.node",
    "dns": "testbed.daemon.dns",
}


def main(argv: list[str]) -> None:
    """Hand over to the role named first."""
    if not argv or argv[0] not in ROLES:
        sys.exit(f"usage: python -m testbed.daemon {{{' | '.join(ROLES)}}} …")
    importlib.import_module(ROLES[argv[0]]).main(argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
