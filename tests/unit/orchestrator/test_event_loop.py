"""One loop a process: runs coroutines for other threads, and leaves none behind."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

import pytest

from orchestrator import event_loop
from orchestrator.event_loop import LoopThread

AFTER_A_FORK = """
import asyncio, os
from orchestrator import event_loop

async def where():
    await asyncio.sleep(0)
    return os.getpid()

assert event_loop.run(where()) == os.getpid()
child = os.fork()
if not child:
    os._exit(7 if event_loop.run(where()) == os.getpid() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert event_loop.run(where()) == os.getpid()
"""


class InterruptionError(BaseException):
    """As a signal interrupts a waiting thread."""


@pytest.fixture(scope="module")
def loop() -> LoopThread:
    return LoopThread()


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def fail() -> None:
    await asyncio.sleep(0)
    raise KeyError("surprise")


def test_it_returns_what_the_coroutine_returns(loop: LoopThread) -> None:
    assert loop.run(answer(7)) == 7


def test_it_raises_what_the_coroutine_raises(loop: LoopThread) -> None:
    with pytest.raises(KeyError, match="surprise"):
        loop.run(fail())


def test_the_loop_stays_the_same() -> None:
    async def which() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert event_loop.run(which()) is event_loop.run(which())
    assert event_loop.current() is event_loop.current()


def test_two_threads_wait_at_once(loop: LoopThread) -> None:
    both = threading.Barrier(2)

    async def meet() -> None:
        await asyncio.to_thread(both.wait, 5)

    threads = [threading.Thread(target=loop.run, args=(meet(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
    assert not both.broken


def test_an_interrupted_thread_cancels_its_coroutine_and_waits_for_its_end(loop: LoopThread) -> None:
    seen: list[str] = []

    async def hang() -> None:
        # Time for the main thread to begin its wait.
        await asyncio.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            seen.append("ended")

    with raising_on_signal(), pytest.raises(InterruptionError):
        loop.run(hang())
    assert seen == ["ended"]


@contextmanager
def raising_on_signal() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise InterruptionError

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_what_is_submitted_can_be_cancelled(loop: LoopThread) -> None:
    future = loop.submit(asyncio.sleep(60))
    future.cancel()
    with pytest.raises(CancelledError):
        future.result(5)


def test_a_plain_function_is_called_on_the_loop(loop: LoopThread) -> None:
    called = threading.Event()
    loop.call_soon(called.set)
    assert called.wait(5)


def test_a_forked_process_starts_a_loop_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", AFTER_A_FORK], check=True, timeout=20)


def test_what_threads_wait_for_can_be_abandoned(loop: LoopThread) -> None:
    waiting = threading.Event()
    ended: list[BaseException] = []

    async def hang() -> None:
        waiting.set()
        await asyncio.Event().wait()

    def wait() -> None:
        try:
            loop.run(hang())
        except CancelledError as error:
            ended.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert waiting.wait(5)
    assert loop.abandon() == 1
    thread.join(5)
    assert len(ended) == 1, "the thread still waits"
    assert loop.abandon() == 0
