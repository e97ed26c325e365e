"""Which images there are, what each stands on, and how base and libraries are made without a registry."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from testbed.agent.images import find_image, images_dir
from testbed.runtime.images import ROLES, install_command, outdated, references, wanted
from testbed.runtime.images_base import bootstrap_command, source_lines

TARGETS = """\
http://mirror.example/debian/ bookworm main Debian
http://mirror.example/debian/ bookworm main Debian
http://mirror.example/debian/ bookworm contrib Debian
http://mirror.example/debian-security/ bookworm-security main Debian
https://deb.nodesource.com/node_20.x/ nodistro main . nodistro
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return Path(shutil.copytree(images_dir(), tmp_path / "images"))


def test_every_image_directory_is_built_and_every_image_has_one() -> None:
    assert {path.parent.name for path in images_dir().glob("*/Dockerfile")} == set(ROLES)


def test_parents_are_built_first() -> None:
    built = [""]
    for image in wanted().values():
        assert image.parent in built
        built.append(image.reference)


def test_a_name_without_a_tag_means_the_image_of_these_sources() -> None:
    found = references(wanted())
    assert set(found) == {f"testbed/{role}" for role in ROLES}
    assert all(reference.startswith(f"{name}:") for name, reference in found.items())


def test_a_changed_file_changes_the_image_it_is_in_and_no_other(sources: Path) -> None:
    before = references(wanted(sources))
    with (sources / "web/files/etc/testbed/web.conf").open("a") as file:
        file.write("# changed\n")
    after = references(wanted(sources))
    assert {name for name in after if after[name] != before[name]} == {"testbed/web"}


def test_a_changed_base_changes_all(sources: Path) -> None:
    before = references(wanted(sources))
    with (sources / "base/packages").open("a") as file:
        file.write("cowsay\n")
    after = references(wanted(sources))
    assert all(after[name] != before[name] for name in after)


def test_old_images_of_other_sources_are_outdated_and_young_ones_may_be_somebody_elses() -> None:
    day = 24 * 3600
    found = [
        {"Id": "current", "Created": 0, "RepoTags": ["testbed/web:now"]},
        {"Id": "old", "Created": 0, "RepoTags": ["testbed/web:then"]},
        {"Id": "nameless", "Created": 0, "RepoTags": None},
        {"Id": "young", "Created": 2 * day - 60, "RepoTags": ["testbed/web:elsewhere"]},
    ]
    assert outdated(found, {"testbed/web:now"}, 2 * day) == ["old", "nameless"]


@pytest.mark.parametrize("role", ["pause", "web", "netexec", "daemon", "load", "probe"])
def test_every_image_that_runs_says_how_in_a_form_that_both_runtimes_read(role: str) -> None:
    image = find_image(f"testbed/{role}")
    assert image.entrypoint
    program = image.entrypoint[0]
    assert program in ("python3", "/usr/bin/sleep") or any(
        (files / program.lstrip("/")).is_file() for files in image.files
    )


def test_libraries_are_installed_as_wheels_for_the_python_of_the_image_with_their_hashes(tmp_path: Path) -> None:
    argv = install_command(Path("x.lock"), tmp_path, "3.12")
    assert argv[argv.index("--python-version") + 1] == "3.12"
    assert {"--require-hashes", "--only-binary", "--no-deps"} <= set(argv)


def test_the_lock_has_no_index_and_a_hash_for_every_library() -> None:
    lock = (images_dir() / "python/requirements.lock").read_text()
    assert "--index-url" not in lock
    assert "://" not in lock
    requirements = lock.replace("\\\n", " ").splitlines()
    pinned = [line for line in requirements if line and not line.lstrip().startswith("#")]
    assert all("==" in line and "--hash=sha256:" in line for line in pinned)


def test_sources_are_those_of_the_distribution_each_once() -> None:
    assert source_lines(TARGETS, {"debian"}) == [
        "deb http://mirror.example/debian/ bookworm main contrib",
        "deb http://mirror.example/debian-security/ bookworm-security main",
    ]


def test_the_bootstrap_takes_packages_sources_and_proxies_from_outside() -> None:
    proxy = 'Acquire::http::Proxy "http://proxy:3128";'
    argv = bootstrap_command(
        ["nginx-light", "python3"], Path("/tmp/root.tar"), ["deb http://mirror stable main"], [proxy]
    )
    assert "--include=nginx-light,python3" in argv
    assert f"--aptopt={proxy}" in argv
    assert argv[-2:] == ["/tmp/root.tar", "deb http://mirror stable main"]
