"""The resident generator: JSON lines in, JSON lines out, so that a trial pays for no start of Python or Locust.

    → {"load": {"name": "http_get.py", "source": "…"}}     ← {"loaded": {"name": …, "cpus": [0], "nice": -10}}
    → {"trial": {"host": "http://10.244.1.2:80", …}}       ← {"result": {…}}
    → {"check": {"host": …, "requests": 20}}               ← {"checked": {"requests": 20, "errors": 0, "error": ""}}

A request that cannot be served is answered with {"error": "…"}. The end of the input is the end of the generator.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from testbed.errors import BadInput, TestbedError
from testbed.loadgen.cpu import pin
from testbed.loadgen.engine import Engine
from testbed.loadgen.paths import check_path
from testbed.loadgen.priority import prefer
from testbed.loadgen.records import Trial, to_line


def serve(cpus: tuple[int, ...], requests: TextIO, answers: TextIO) -> None:
    """Answer every line of `requests`, on those CPUs only, until it ends."""
    generator = Generator(pin(cpus), prefer())
    for line in requests:
        answers.write(to_line(generator.answer(line)))
        answers.flush()


class Generator:
    """A Locust engine behind a table of operations."""

    def __init__(self, cpus: tuple[int, ...], nice: int) -> None:
        self._cpus, self._nice = cpus, nice
        self._engine: Engine | None = None
        self._operations: Mapping[str, Callable[[Any], dict[str, Any]]] = {
            "load": self._load,
            "trial": self._trial,
            "check": self._check,
        }

    def answer(self, line: str) -> dict[str, Any]:
        """The answer to one line, whatever it holds."""
        try:
            ((operation, argument),) = json.loads(line).items()
            return self._operations[operation](argument)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {"error": f"not a request that this generator knows: {line.strip()[:200]} ({error!r})"}
        except TestbedError as error:
            return {"error": str(error)}

    def _load(self, source: Mapping[str, str]) -> dict[str, Any]:
        if self._engine is not None:
            raise BadInput("this generator has its locustfile already; start another one")
        self._engine = Engine.of_source(source["name"], source["source"])
        return {"loaded": {"name": source["name"], "cpus": list(self._cpus), "nice": self._nice}}

    def _trial(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        if self._engine is None:
            raise BadInput("no locustfile is loaded yet")
        return {"result": self._engine.trial(Trial.from_json(doc)).to_json()}

    def _check(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        return {"checked": check_path(doc["host"], int(doc["requests"]))}
