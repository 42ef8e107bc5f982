"""The warden: a process that has everything imported, and forks one for each suspect.

A suspect's process is there within milliseconds, where a new interpreter takes a second; innocent suspects, who are
the most, hardly notice. The warden itself runs nothing of theirs and has one thread, so that a fork is safe.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from orchestrator.isolation.wire import dump_end, dump_start

log = structlog.get_logger()

GRACE_SECONDS: Final = 0.5
"""For a ward that nobody waits for any more to hang up on its provider; then it is killed."""
IDLE_SECONDS: Final = 60.0
"""Without a ward for so long, the warden gives its memory back; the worker starts another when it needs one."""

Live = Callable[[socket.socket], None]
"""The life of a ward, given its end of the socket."""


@dataclass(slots=True)
class Ward:
    """One suspect's process, as its warden knows it."""

    socket: socket.socket
    """The ward's own end. The worker's end is closed when nobody waits any more."""
    killed_at: float | None = None
    """By the monotonic clock; None while somebody waits."""


class Warden:
    """Serves one worker, over the socket the worker gave it, until that is closed."""

    def __init__(self, control: socket.socket, live: Live) -> None:
        self._control = control
        self._live = live
        self._wards: dict[int, Ward] = {}
        self._woken, self._waker = socket.socketpair()
        self._poll = select.poll()
        self._idle_at = time.monotonic() + IDLE_SECONDS

    def serve(self) -> None:
        """Until the worker is gone, or has needed nobody for long."""
        self._listen()
        try:
            while self._wards or time.monotonic() < self._idle_at:
                readable = self._wait()
                if self._control.fileno() in readable and not self._admit():
                    return
                self._reap()
                self._let_go(readable)
        finally:
            for pid in self._wards:
                kill_group(pid)

    def _listen(self) -> None:
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        # Whoever stops the worker may signal all its processes; when a ward ends is for the worker to say. A handler
        # rather than SIG_IGN, which programs started by a ward would inherit.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _only_wake)
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    def _wait(self) -> frozenset[int]:
        moments = [ward.killed_at for ward in self._wards.values() if ward.killed_at is not None]
        until = min(moments, default=self._idle_at)
        milliseconds = max(0.0, until - time.monotonic()) * 1000 + 1
        readable = frozenset(fd for fd, _ in self._poll.poll(None if self._wards and not moments else milliseconds))
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        return readable

    def _admit(self) -> bool:
        """Fork for the socket that the worker sent along; False when the worker is gone."""
        received = _receive_socket(self._control)
        if received is None:
            return False
        ward = Ward(received)
        pid = os.fork()
        if pid == 0:
            self._become(ward)
        with suppress(PermissionError, ProcessLookupError):  # the ward was quicker
            os.setpgid(pid, pid)
        self._wards[pid] = ward
        self._poll.register(ward.socket, 0)
        _tell(ward, dump_start(pid))
        return True

    def _become(self, ward: Ward) -> None:
        """In the forked process: leave the warden's things behind, live, end."""
        status = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for other in (self._control, self._woken, self._waker, *(ward.socket for ward in self._wards.values())):
                other.close()
            self._live(ward.socket)
            status = 0
        except Exception:
            log.exception("ward_failed")
        finally:
            # Nothing may come back from here: further up is the warden's loop.
            os._exit(status)

    def _reap(self) -> None:
        for pid, status in _find_ended():
            ward = self._wards.pop(pid)
            kill_group(pid)
            _tell(ward, dump_end(status))
            if ward.killed_at is None:
                self._poll.unregister(ward.socket)
            ward.socket.close()
            self._idle_at = time.monotonic() + IDLE_SECONDS

    def _let_go(self, hung_up: frozenset[int]) -> None:
        """End whom nobody waits for: the ward sees it too, and may do so by itself within the grace."""
        now = time.monotonic()
        for pid, ward in self._wards.items():
            if ward.killed_at is None and ward.socket.fileno() in hung_up:
                self._poll.unregister(ward.socket)
                ward.killed_at = now + GRACE_SECONDS
            elif ward.killed_at is not None and ward.killed_at <= now:
                kill_group(pid)
                ward.killed_at = now + GRACE_SECONDS


def kill_group(pid: int) -> None:
    """The ward with all it started itself."""
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group that has ended
        os.killpg(pid, signal.SIGKILL)


def _receive_socket(control: socket.socket) -> socket.socket | None:
    """None when the worker is gone, however it went."""
    try:
        word, descriptors, _, _ = socket.recv_fds(control, 1, 1)
    except ConnectionError:
        return None
    return socket.socket(fileno=descriptors[0]) if word else None


def _find_ended() -> Iterator[tuple[int, int]]:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended[0], os.waitstatus_to_exitcode(ended[1])


def _tell(ward: Ward, line: bytes) -> None:
    with suppress(OSError):  # nobody waits any more, or nobody reads: silence tells the same
        ward.socket.send(line, socket.MSG_DONTWAIT)


def _only_wake(*_: object) -> None:
    """The wakeup socket has told already."""
