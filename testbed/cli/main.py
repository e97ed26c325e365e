"""`testbed`: one module per group of commands, imported when one of them is called.

A command's module imports at its top only what parsing needs, and in its body what the work needs: `testbed up` is
on its way before the HTTP client has been read from disk.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from testbed.errors import TestbedError

COMMANDS: Mapping[str, str] = {
    "up": "testbed.cli.clusters",
    "down": "testbed.cli.clusters",
    "status": "testbed.cli.status",
    "service": "testbed.cli.service",
    "proxy": "testbed.cli.service",
    "apply": "testbed.cli.pods",
    "exec": "testbed.cli.pods",
    "logs": "testbed.cli.pods",
    "load": "testbed.cli.load",
    "compare": "testbed.cli.compare",
    "report": "testbed.cli.compare",
    "images": "testbed.cli.machine",
    "kubeconfig": "testbed.cli.clusters",
    "schema": "testbed.cli.machine",
    "doctor": "testbed.cli.machine",
}
"""Where each command is: a function of its own name, `exec` being `exec_`, because Python has one already."""
Verbosity = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Say on stderr what is done; -vv: say everything.")
]
PASSES_ON = {"exec"}
"""Commands whose arguments, from the first on, belong to another program."""


class Commands(TyperGroup):
    """The commands of `COMMANDS`, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature of the class above
        """In the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The command of that name, with `-v` added."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name])
        function = getattr(module, cmd_name, None) or getattr(module, f"{cmd_name}_")
        passes_on = cmd_name in PASSES_ON
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(
            cmd_name, context_settings={"allow_interspersed_args": not passes_on, "ignore_unknown_options": passes_on}
        )(_with_verbosity(function))
        return typer.main.get_command(single)


def _with_verbosity(function: Callable[..., None]) -> Callable[..., None]:
    """The same command with one more option, `-v`, which sets up logging before it begins."""

    @functools.wraps(function)
    def verbose_too(*args: Any, verbose: int, **options: Any) -> None:
        _set_up_logging(verbose)
        function(*args, **options)

    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    verbose_too.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)  # help wraps by itself
    signature = inspect.signature(function, eval_str=True)
    option = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=0, annotation=Verbosity)
    verbose_too.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    verbose_too.__annotations__ = {**inspect.get_annotations(function, eval_str=True), "verbose": Verbosity}
    return verbose_too


def _set_up_logging(verbosity: int) -> None:
    level = (logging.ERROR, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    logging.basicConfig(stream=sys.stderr, level=level, format="%(message)s" if verbosity < 2 else logging.BASIC_FORMAT)
    for chatty in ("docker", "urllib3", "websockets", "asyncio"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib import metadata

        print(f"testbed {metadata.version('testbed')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """The network of Kubernetes, rebuilt from real parts, so that its cost can be measured."""


def main() -> None:
    """Run the command and exit: 0 done, 1 check failed, 2 bad input, 3 the machine lacks something, 4 failed."""
    try:
        app(prog_name="testbed")
    except TestbedError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
