"""`python -m testbed.cli`: the same as `testbed`."""

from testbed.cli.main import main

main()
