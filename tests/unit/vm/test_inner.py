"""What is read from the report of tests that were run in the virtual machine."""

from __future__ import annotations

from tests.vm.inner import Inner, parse

REPORT = """\
<testsuites><testsuite>
  <testcase classname="tests.kernel.test_ipvs" name="test_a[real]"/>
  <testcase classname="tests.kernel.test_ipvs" name="test_b"><failure message="no">trace</failure></testcase>
  <testcase classname="tests.kernel.test_ipvs" name="test_b"><error message="again">trace</error></testcase>
  <testcase classname="tests.kernel.test_ipvs" name="test_c"><error>set-up</error></testcase>
  <testcase classname="tests.kernel.test_ipvs" name="test_d"><skipped message="the kernel has no IPVS"/></testcase>
</testsuite></testsuites>
"""


def test_each_inner_test_is_told_once_with_its_reason() -> None:
    assert list(parse(REPORT)) == [
        Inner("test_ipvs.py::test_a[real]", "passed", ""),
        Inner("test_ipvs.py::test_b", "failed", "no"),
        Inner("test_ipvs.py::test_c", "failed", "set-up"),
        Inner("test_ipvs.py::test_d", "skipped", "the kernel has no IPVS"),
    ]
