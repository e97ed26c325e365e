"""The results as one JSON document, for programs: `-o json`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from testbed.compare.analysis import METRICS, Cell
from testbed.compare.results import Results
from testbed.compare.statistics import Estimate


def document(results: Results) -> dict[str, Any]:
    """Verdict, cells, circumstances. A bound that is not known is null. The measurements stay on disk."""
    environment, analysis, verdict = results.environment, results.analysis, results.verdict
    return {
        "name": environment.name,
        "status": verdict.status,
        "doubts": list(verdict.doubts),
        "headline": verdict.headline,
        "sentences": dict(verdict.sentences),
        "baseline": environment.baseline,
        "primary": {"variant": environment.primary[0], "metric": environment.primary[1]},
        "rounds": len(analysis.rounds),
        "dropped": [dataclasses.asdict(one) for one in analysis.dropped],
        "stopped": environment.stopped,
        "units": {key: metric.unit for key, metric in METRICS.items()},
        "variants": {name: {key: _cell(cell) for key, cell in cells.items()} for name, cells in analysis.cells.items()},
        "paths": {name: {"status": one.path, "detail": one.path_detail} for name, one in environment.variants.items()},
        "environment": dataclasses.asdict(environment),
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "value": cell.value,
        "difference": _estimate(cell.difference),
        "ratio": _estimate(cell.ratio),
        "within_noise": cell.within_noise,
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in dataclasses.asdict(estimate).items()}
