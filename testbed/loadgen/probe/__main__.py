"""`python -m testbed.loadgen.probe`: what the image testbed/probe runs.

sleep                  nothing, until ended: the pod's own command; `serve` comes by exec
serve                  JSON lines in, JSON lines out: {"counters": {}} and so on, as listed below
OPERATION [ARGUMENT]   one of them, with its argument as JSON

counters          {}                                  devices with MTU and offloads; tracked connections
machine           {}                                  kernel, CPU, load, versions
capture           {"device": "eth0", "seconds": 30}   {"ready": true}, and with the next line, whatever it is (or at
                                                      the end of the time), the flows; both are optional
conntrack-delete  {"target": "10.244.1.2"}            how many connections to that address were forgotten
    serving           {"address": IP, "port": 80}         the processes that listen there
    cpu               {"pids": [7, 8]}                    CPU time that they have used, in µs
    prefer            {"pids": [7, 8]}                    the nice value that they then have, as raised as allowed
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Any, TextIO

from testbed.errors import BadInput, TestbedError

Answer = dict[str, Any]


def main(argv: list[str]) -> None:
    """Do what the first word says."""
    command = argv[0] if argv else ""
    if command == "sleep":
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    elif command == "serve":
        serve(sys.stdin, sys.stdout)
    elif command in OPERATIONS:
        line = json.dumps({command: json.loads(argv[1] if len(argv) > 1 else "{}")})
        _say(sys.stdout, answer(line, sys.stdin, sys.stdout))
    else:
        sys.exit(__doc__)


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answer every line until the input ends."""
    while line := questions.readline():
        _say(answers, answer(line, questions, answers))


def answer(line: str, questions: TextIO, answers: TextIO) -> Answer:
    """The answer to one line; {"error": sentence} where it cannot be done."""
    try:
        ((operation, argument),) = json.loads(line).items()
        if operation == "capture":
            return capture(argument, questions, answers)
        return OPERATIONS[operation](argument)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"error": f"not a question that this probe knows: {line.strip()[:200]} ({error!r})"}
    except TestbedError as error:
        return {"error": str(error)}


def counters(_: Mapping[str, Any]) -> Answer:
    """See `probe.counters`. Each operation imports only its own module: the first answer comes sooner."""
    from testbed.loadgen.probe import counters as module

    return module.counters()


def machine(_: Mapping[str, Any]) -> Answer:
    """See `probe.machine`."""
    from testbed.loadgen.probe import machine as module

    return module.machine()


def capture(argument: Mapping[str, Any], questions: TextIO, answers: TextIO) -> Answer:
    """See `probe.capture`; the line that ends it is read and forgotten."""
    from testbed.loadgen.probe.capture import Capture, default_device

    opened = Capture(argument.get("device") or default_device())
    _say(answers, {"ready": True})
    if opened.run(float(argument.get("seconds", 30)), until=questions.fileno()):
        questions.readline()
    return opened.result()


def conntrack_delete(argument: Mapping[str, Any]) -> Answer:
    """See `probe.conntrack`."""
    from testbed.loadgen.probe.conntrack import delete_connections

    return {"deleted": delete_connections(IPv4Address(argument["target"]))}


def serving(argument: Mapping[str, Any]) -> Answer:
    """See `probe.serving`."""
    from testbed.loadgen.probe import serving as module

    return {"pids": module.serving(IPv4Address(argument["address"]), int(argument["port"]))}


def cpu(argument: Mapping[str, Any]) -> Answer:
    """See `probe.serving`."""
    from testbed.loadgen.probe.serving import cpu_us

    return {"cpu_us": cpu_us(argument["pids"])}


def prefer(argument: Mapping[str, Any]) -> Answer:
    """See `loadgen.priority`."""
    from testbed.loadgen import priority

    return {"nice": max((priority.prefer(pid) for pid in argument["pids"]), default=0)}


def stop(_: Mapping[str, Any]) -> Answer:
    """What ends a capture; alone it is a mistake."""
    raise BadInput("no capture runs")


OPERATIONS: Mapping[str, Callable[[Mapping[str, Any]], Answer]] = {
    "counters": counters,
    "machine": machine,
    "capture": lambda argument: capture(argument, sys.stdin, sys.stdout),
    "conntrack-delete": conntrack_delete,
    "serving": serving,
    "cpu": cpu,
    "prefer": prefer,
    "stop": stop,
}


def _say(answers: TextIO, doc: Answer) -> None:
    answers.write(json.dumps(doc) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
