"""An adapter that harms its process when a prompt says so, and answers everybody else; `provider: sync` loads it."""

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

LARGEST_BYTES = 64 * 2**20
"""Where this test's kernel loses patience with an eater of memory."""


def write_down(text: str) -> None:
    """Where the test looks."""
    Path(os.environ["POISON_FILE"]).write_text(text)


def crash(_: str) -> str:
    """As C code does that reads where nothing is."""
    return ctypes.string_at(0).decode()


def leave(_: str) -> str:
    """A library that thinks the process is its own."""
    os._exit(0)


def block(_: str) -> str:
    """Backtracks for years, and holds the interpreter's lock all the while."""
    write_down("blocks")
    return str(re.match(r"(a|aa|a?a)+$", "a" * 200 + "b"))


def eat(_: str) -> str:
    """Allocates until the kernel kills it: where it would, we do, so that the machine is left in peace."""
    eaten: list[bytearray] = []
    while len(eaten) * 2**20 < LARGEST_BYTES:
        eaten.append(bytearray(2**20))
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def abandon(_: str) -> str:
    """Starts a program that outlives it, and dies."""
    write_down(str(subprocess.Popen(["sleep", "60"]).pid))
    os._exit(3)


def tell_oom_score(_: str) -> str:
    return Path("/proc/self/oom_score_adj").read_text().strip()


def tell_pid(_: str) -> str:
    return str(os.getpid())


def linger(prompt: str) -> str:
    time.sleep(5 if "for long" in prompt else 0.5)
    return str(os.getpid())


HARMS: Mapping[str, Callable[[str], str]] = {
    f"please {harm.__name__}": harm for harm in (crash, leave, block, eat, abandon, tell_oom_score, tell_pid, linger)
}


class Poisonable:
    """Does what the prompt asks for, else answers."""

    def execute_prompt(self, prompt: str) -> str:
        harm = next((harm for words, harm in HARMS.items() if words in prompt), None)
        return "harmless" if harm is None else harm(prompt)


class Patient:
    """Waits for long; writes down that it does, and when it was told to let go."""

    async def async_execute_prompt(self, prompt: str) -> str:
        write_down("waits")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            write_down("let go")
            raise
        return "at last"


class Standing:
    """Holds the event loop it is awaited on, and lets every other thread run."""

    async def async_execute_prompt(self, prompt: str) -> str:
        write_down("stands")
        time.sleep(60)  # noqa: ASYNC251 (that is the harm)
        return "at last"


adapter = Poisonable()
standing = Standing()
patient = Patient()
