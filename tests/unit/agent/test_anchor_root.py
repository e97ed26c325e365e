"""How a container's root is made on different machines."""

from __future__ import annotations

from testbed.agent.anchor_root import BIND, DIRECTORY, FRESH, LINK, OVERLAY, Machine, Step, recipe

WANTED = ("/etc", "/usr/local", "/tmp", "/run", "/home/me/testbed")


def test_on_one_file_system_one_overlay_holds_everything() -> None:
    assert recipe(Machine((), WANTED, is_user=False)) == (Step("/", OVERLAY), Step("/run", FRESH))


def test_a_file_system_that_programs_need_gets_an_overlay_of_its_own() -> None:
    steps = recipe(Machine(("/boot", "/home", "/run", "/run/user/0", "/tmp", "/usr"), WANTED, is_user=False))
    assert steps == (
        Step("/", OVERLAY), Step("/home", OVERLAY), Step("/run", FRESH), Step("/tmp", OVERLAY), Step("/usr", OVERLAY),
    )  # fmt: skip


def test_in_a_user_namespace_what_has_mounts_below_it_is_no_lower_layer() -> None:
    steps = dict(recipe(Machine(("/etc/mounted", "/run"), WANTED, is_user=True)))
    assert steps["/"] == DIRECTORY
    assert steps["/usr"] == OVERLAY
    assert steps["/etc"] == BIND
    assert steps["/run"] == FRESH
    assert steps["/proc"] == DIRECTORY


def test_in_a_user_namespace_a_directory_to_write_to_stays_writable() -> None:
    assert dict(recipe(Machine(("/tmp/mounted",), WANTED, is_user=True)))["/tmp"] == DIRECTORY


def test_in_a_user_namespace_symlinks_of_the_root_are_kept() -> None:
    kinds = {step.how for step in recipe(Machine(("/run",), WANTED, is_user=True)) if step.path in ("/bin", "/lib")}
    assert kinds <= {LINK, OVERLAY}, "a link on merged-/usr systems, a directory on others"
