"""A loop that stands still ends its process, with the evidence; one that turns does not."""

import subprocess
import sys

import pytest

from orchestrator.liveness.dead_man import decide_limit_seconds

PROGRAM = """
import asyncio, re, time
from orchestrator.liveness import dead_man

async def main():
    holding = asyncio.create_task(dead_man.hold_off({limit_seconds}))
    await asyncio.sleep(0.1)
    {block}
    holding.cancel()
    await asyncio.sleep(0.1)
    print("ended")

asyncio.run(main())
time.sleep({limit_seconds})
"""
HOLDS_EVERY_THREAD = 're.match(r"(a+)+$", "a" * 40 + "b")'


def run(block: str, limit_seconds: float) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-c", PROGRAM.format(block=block, limit_seconds=limit_seconds))
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.parametrize("block", [HOLDS_EVERY_THREAD, "time.sleep(30)"], ids=["no thread can run", "the loop sleeps"])
def test_a_loop_that_stands_still_ends_its_process_and_shows_where(block: str) -> None:
    finished = run(block, limit_seconds=0.3)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "Timeout" in finished.stderr
    assert "line 8 in main" in finished.stderr


def test_a_loop_that_turns_goes_on_and_is_let_go_of_at_its_end() -> None:
    finished = run("await asyncio.sleep(1.2)", limit_seconds=0.8)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "ended\n", "")


def test_the_limit_follows_the_lease_and_spares_slow_machines() -> None:
    assert decide_limit_seconds(1) == 30
    assert decide_limit_seconds(30) == 120
