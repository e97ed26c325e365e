"""How much is tested: the fast core, or (TESTBED_FULL=1, `make test-full`) all that this machine can show."""

from __future__ import annotations

import os

FULL = os.environ.get("TESTBED_FULL") == "1"
"""The one place where that is read."""
ONLY_IN_FULL = "only in `make test-full`"
