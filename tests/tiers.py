"""How much is tested, the fast core or (TESTBED_FULL=1, `make test-full`) all that can be shown here; how patiently."""

from __future__ import annotations

import os

SLOWNESS = float(os.environ.get("TESTBED_SLOWNESS", "1"))
"""How many times slower than usual this machine is, where it is an emulated one (tests/vm): bounds grow with it."""
FULL = os.environ.get("TESTBED_FULL") == "1"
"""The one place where that is read."""
ONLY_IN_FULL = "only in `make test-full`"
