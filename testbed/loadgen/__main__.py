"""`python -m testbed.loadgen`: what the image testbed/load runs.

serve [--cpu N]…                                            the resident generator (testbed.loadgen.serve)
run (FILE | -) --host URL [--users N] [--seconds S] [--cpu N]…    one locustfile, once (testbed.loadgen.run)
sleep                                                       nothing, until ended: a pod that waits for an exec
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TextIO


def main(argv: list[str]) -> None:
    """Parse `argv` and do it. Locust is imported only by what needs it: the import takes most of a second."""
    options = parser().parse_args(argv)
    if options.command == "sleep":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            signal.pause()
    cpus, answers = tuple(options.cpu), answers_only()
    if options.command == "serve":
        from testbed.loadgen.serve import serve

        serve(cpus, sys.stdin, answers)
    else:
        from testbed.loadgen.run import run

        run(options.locustfile, options.host, options.users, options.seconds, cpus, answers)


def answers_only() -> TextIO:
    """What was stdout; from now on everything else that prints (Locust, a locustfile) prints to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def parser() -> argparse.ArgumentParser:
    """The three commands and their options."""
    top = argparse.ArgumentParser(prog="python -m testbed.loadgen", description="Load, from inside a pod.")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("sleep", help="do nothing until ended")
    serve = commands.add_parser("serve", help="answer JSON lines until the input ends")
    run = commands.add_parser("run", help="run one locustfile once")
    run.add_argument("locustfile", help="its path, or - for its text on stdin")
    run.add_argument("--host", required=True, help="base URL of the target")
    run.add_argument("--users", type=int, default=10)
    run.add_argument("--seconds", type=float, default=10.0)
    for command in (serve, run):
        command.add_argument("--cpu", type=int, action="append", default=[], help="run on this CPU only (repeatable)")
    return top


if __name__ == "__main__":
    main(sys.argv[1:])
