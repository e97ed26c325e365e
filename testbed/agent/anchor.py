"""The anchor: what dockerd is to the docker runtime. Process 1 of the cluster's pid, mount and network namespaces.

    testbed up ──spawns──▶ launcher ──unshare, fork──▶ anchor (pid 1) ──fork, exec──▶ control plane, agent, containers

It runs processes, keeps network namespaces and a listening socket, reaps everything, and remembers exit codes, so that
everything that thinks may be killed and come back. It holds no file: when it ends, the kernel ends all that is in it.
As a plain user it makes a user namespace first, in which that user is root.

Clients speak anchor_wire over RUNDIR/anchor.sock; see anchor_client for the operations.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed.agent.anchor_child import Roots
from testbed.agent.anchor_connection import Connection
from testbed.agent.anchor_namespaces import PRIVATE, PROCESS_NAME, Namespaces, bring_up_loopback, enter_namespaces
from testbed.agent.anchor_processes import Processes
from testbed.agent.anchor_root import recipe, this_machine
from testbed.agent.anchor_wire import Message
from testbed.errors import BadRequest, KernelError, TestbedError


def main() -> None:
    """`-c 'from testbed.agent.anchor import main; main()' testbed-anchor CLUSTER CONFIG`: found by that in /proc.

    CONFIG is JSON: `run_dir`; `socket_fd`, the listening Unix socket of this anchor; `keep_fds`, sockets for the
    process whose plan asks for them; `before_fd`, a file to keep open; `needed`, paths that containers must see;
    and, for those who find this anchor, `state_dir` and `port`.
    """
    config = json.loads(sys.argv[3])
    for fd in (config["socket_fd"], config["before_fd"], *config["keep_fds"]):
        os.set_inheritable(fd, False)
    private = Path(config["run_dir"], PRIVATE)
    machine = this_machine(config["needed"])
    try:
        machine = machine._replace(is_user=enter_namespaces(private))
    except KernelError as error:
        sys.exit(f"{PROCESS_NAME}: {error}")
    roots = Roots(machine, recipe(machine))
    Anchor(socket.socket(fileno=config["socket_fd"]), private, roots, config["keep_fds"]).serve()


class Anchor:
    """The loop of process 1: clients, children, restarts."""

    def __init__(self, listener: socket.socket, private: Path, roots: Roots, keep_fds: list[int]) -> None:
        self._listener = listener
        self._namespaces = Namespaces(private / "netns")
        self._notes: dict[str, Any] = {}
        self._generation = 0
        self._watchers: list[Connection] = []
        self._selector = selectors.DefaultSelector()
        self._processes = Processes(self._selector, roots, keep_fds, self._changed)
        self._operations: dict[str, Callable[[Connection, Message], None]] = {
            "note": self._note, "notes": self._tell_notes, "netns": self._list_namespaces,
            "ensure-netns": self._ensure_namespaces, "delete-netns": self._delete_namespaces,
            "run": self._run, "exec": self._exec, "list": self._list, "signal": self._signal, "remove": self._remove,
            "watch": self._watch, "wait": self._wait,
        }  # fmt: skip

    def serve(self) -> None:
        """Never returns."""
        woken, waker = socket.socketpair()
        for sock in (woken, waker, self._listener):
            sock.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._selector.register(woken, selectors.EVENT_READ, lambda: woken.recv(4096))
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        bring_up_loopback()
        gc.disable()  # nothing here makes cycles worth a pass, and a pass would unshare the pages of every child
        gc.freeze()
        while True:
            self._step()

    def _step(self) -> None:
        for key, mask in self._selector.select(self._processes.next_due_s()):
            try:
                if isinstance(key.data, Connection):
                    self._serve_client(key.data, mask)
                else:
                    key.data()
            except Exception:  # noqa: BLE001 - a defect must cost one request, not all that process 1 holds
                sys.excepthook(*sys.exc_info())
        self._processes.reap()
        self._processes.restart_due()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        connection = Connection(sock, self._selector)
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _serve_client(self, connection: Connection, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            connection.flush()
        if not mask & selectors.EVENT_READ:
            return
        for request in connection.receive():
            try:
                operation = self._operations.get(request.get("op", ""))
                if operation is None:
                    raise BadRequest(f"no operation {request.get('op')!r}")
                operation(connection, request)
            except TestbedError as error:
                connection.answer(error)
            except (OSError, LookupError, TypeError, ValueError) as error:
                connection.answer(BadRequest(f"{request}: {error!r}"))

    def _changed(self) -> None:
        self._generation += 1
        for watcher in self._watchers:
            watcher.answer(self._generation)
        self._watchers.clear()

    def _note(self, connection: Connection, request: Message) -> None:
        self._notes |= request["notes"]
        connection.answer(None)

    def _tell_notes(self, connection: Connection, _: Message) -> None:
        connection.answer(self._notes)

    def _ensure_namespaces(self, connection: Connection, request: Message) -> None:
        for name in request["names"]:
            self._namespaces.ensure(name, request["labels"])
        connection.answer(None)

    def _delete_namespaces(self, connection: Connection, request: Message) -> None:
        for name in request["names"]:
            self._namespaces.delete(name)
        connection.answer(None)

    def _list_namespaces(self, connection: Connection, _: Message) -> None:
        connection.answer(self._namespaces.labels)

    def _run(self, connection: Connection, request: Message) -> None:
        self._processes.run(request["plan"], connection.answer)

    def _exec(self, connection: Connection, request: Message) -> None:
        stdio = connection.take_fds(3)
        try:
            process = self._processes.execute(request["id"], request["plan"], stdio, connection.answer)
        finally:
            for fd in stdio:
                os.close(fd)
        process.on_exit.append(connection.answer)
        connection.on_close.append(process.kill_group)

    def _list(self, connection: Connection, _: Message) -> None:
        connection.answer({"generation": self._generation, "processes": self._processes.states()})

    def _signal(self, connection: Connection, request: Message) -> None:
        self._processes.signal(request["id"], request["signal"])
        connection.answer(None)

    def _remove(self, connection: Connection, request: Message) -> None:
        self._processes.remove(request["id"])
        connection.answer(None)

    def _watch(self, connection: Connection, request: Message) -> None:
        if self._generation != request["since"]:
            connection.answer(self._generation)
        else:
            self._watchers.append(connection)

    def _wait(self, connection: Connection, request: Message) -> None:
        process = self._processes.find(request["id"])
        if process.pid:
            process.on_exit.append(connection.answer)
        else:
            connection.answer(process.state())
