"""Images of this repository as programs."""

from __future__ import annotations

import pytest

from testbed.agent.images import find_image, images_dir, resolve
from testbed.errors import NotFound

ROLES = sorted(path.parent.name for path in images_dir().glob("*/Dockerfile"))


@pytest.mark.parametrize("role", [role for role in ROLES if role not in ("base", "python")])
def test_every_image_says_how_its_program_starts(role: str) -> None:
    assert find_image(f"testbed/{role}").entrypoint


def test_an_image_inherits_what_it_stands_on() -> None:
    assert find_image("testbed/load").env["PYTHONUNBUFFERED"] == "1"


def test_an_image_ends_by_the_signal_that_it_names() -> None:
    assert find_image("testbed/web").stop_signal == "SIGQUIT"
    assert find_image("testbed/netexec").stop_signal == "SIGTERM"


@pytest.mark.parametrize("name", ["testbed/web", "testbed/web:1.0", "testbed/web@sha256:0"])
def test_a_tag_does_not_matter(name: str) -> None:
    assert find_image(name).role == "web"


@pytest.mark.parametrize("name", ["nginx", "testbed/none", "localhost:5000/web", "web"])
def test_an_unknown_image_is_refused_with_the_ones_there_are(name: str) -> None:
    with pytest.raises(NotFound, match=r"there are testbed/base, .*testbed/web"):
        find_image(name)


@pytest.mark.parametrize(
    ("image", "used"),
    [
        ("nginx", "testbed/web"), ("nginx:1.27", "testbed/web"), ("other/nginx:1", "other/nginx:1"),
        ("redis", "testbed/netexec"), ("redis:7", "redis:7"), ("testbed/pause", "testbed/pause"),
    ],
)  # fmt: skip
def test_aliases_match_with_or_without_latest(image: str, used: str) -> None:
    assert resolve(image, {"nginx:*": "testbed/web", "redis:latest": "testbed/netexec"}) == used
