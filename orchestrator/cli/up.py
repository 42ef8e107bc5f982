"""`llmyard up`: everything on one machine, until Ctrl-C."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.stack.configuration import StackOptions
from orchestrator.stack.stack import Part, Stack
from orchestrator.stack.supervisor import StopRequestedError
from shared.settings import RUNNING_STACK_FILE, load_environment

_WIDTH_WHEN_NOT_A_TERMINAL = 160


def up(
    data: Annotated[Path | None, typer.Option(help="Where the embedded servers keep their data.")] = None,
    api_port: Annotated[int, typer.Option(min=1, max=65535, help="The next free port if it is taken.")] = 8000,
    flower_port: Annotated[int, typer.Option(min=1, max=65535, help="The next free port if it is taken.")] = 5555,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Jobs the worker waits for at once.")] = None,
) -> None:
    """Start all of it on this machine. DATABASE_URL, REDIS_URL and BROKER_URL, where set, replace what is embedded."""
    settings = load_environment()
    directory = data or settings.llmyard_data_dir
    console = _build_console()
    options = StackOptions(directory, api_port, flower_port, concurrency)
    stack = Stack(options, settings, _build_say(console))
    _end_on_signals(stack)
    try:
        with stack:
            _show(stack, console)
            stack.watch()
            console.print("Stopping …")
    except StopRequestedError:
        console.print("Stopped before everything had started.")
    else:
        console.print("Stopped.")


def _end_on_signals(stack: Stack) -> None:
    def request_stop(_number: int, _frame: FrameType | None) -> None:
        stack.request_stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it is ignored on purpose
        signal.signal(signal.SIGHUP, request_stop)


def _build_console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_WHEN_NOT_A_TERMINAL)


def _build_say(console: Console) -> Callable[[str], None]:
    return lambda message: console.print(message, markup=False, soft_wrap=True)


def _show(stack: Stack, console: Console) -> None:
    table = Table("what", "where", "pid", "log")
    for part in stack.parts:
        table.add_row(*(Text(cell, overflow="fold") for cell in _build_row(part)))
    console.print(table)
    secret = stack.directory / RUNNING_STACK_FILE
    console.print(f"URLs with their passwords: {secret}\nCtrl-C stops everything.", markup=False, soft_wrap=True)


def _build_row(part: Part) -> tuple[str, str, str, str]:
    address = f"{part.address} ({part.note})" if part.note else part.address
    return part.name, address, "" if part.pid is None else str(part.pid), "" if part.log is None else str(part.log)
