"""Whose agent this is, and what it knows from its bootstrap directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """One host's agent."""

    host: str
    runtime: str
    """docker or netns."""
    state: Path
    """The directory for the files of pods."""
    token: str
    """The cluster's bearer token, which opens the agent too."""
    authority: str
    """The certificate of the cluster's authority, as PEM."""
