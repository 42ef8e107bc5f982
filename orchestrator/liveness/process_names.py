"""The name of a worker process, by which one after it on the same machine can tell that it is gone.

Machines may share a hostname: those that were copied, and containers that count their processes each for itself. So a
name bears a mark of the kernel's start and of the count its number is from. Of a name with another mark, and where no
mark can be had, nothing is known: its leases run out by themselves.
"""

import hashlib
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_START_OF_KERNEL: Final = Path("/proc/sys/kernel/random/boot_id")
_COUNT_OF_PROCESSES: Final = Path("/proc/self/ns/pid")
_MARK_CHARACTERS: Final = 8


def build_worker_name() -> str:
    """Unique among workers that live at once."""
    return f"{_build_origin(_read_mark())}:{os.getpid()}"


def find_gone(names: Iterable[str]) -> list[str]:
    """Those of processes that have certainly ended. To be asked before this process uses its own name: whoever else
    bears it had the same number before.
    """
    mark = _read_mark()
    if not mark:
        return []
    mine = build_worker_name()
    return [name for name in names if name == mine or _is_gone(name, _build_origin(mark))]


def _is_gone(name: str, origin: str) -> bool:
    its_origin, _, number = name.rpartition(":")
    if its_origin != origin or not number.isdecimal():
        return False
    with suppress(PermissionError):  # it is there, and somebody else's
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return True
    return False


def _build_origin(mark: str) -> str:
    return f"{socket.gethostname()}/{mark}" if mark else socket.gethostname()


def _read_mark() -> str:
    """Empty where the system does not tell, as outside Linux."""
    try:
        told = _START_OF_KERNEL.read_text() + str(_COUNT_OF_PROCESSES.readlink())
    except OSError:
        return ""
    return hashlib.sha256(told.encode()).hexdigest()[:_MARK_CHARACTERS]
