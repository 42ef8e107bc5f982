"""What one process has used up to now, read while it lives: CPU, and memory at its most."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.throughput.costs import read_pss_kb

PEAK: Final = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one process; all zero before it was looked at."""

    cpu_seconds: float = 0.0
    rss_mb: float = 0.0
    """At most, as the kernel remembers it."""
    pss_mb: float = 0.0
    """At most, of the moments at which it was looked at."""


def look_at(pid: int, before: Footprint) -> Footprint:
    """What it has used; where it is gone, what was seen last."""
    with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        times = psutil.Process(pid).cpu_times()
        status = Path(f"/proc/{pid}/status").read_text()
        if (peak := PEAK.search(status)) is not None:  # a process that has ended and waits for its parent has none
            return Footprint(
                times.user + times.system, int(peak[1]) / 1024, max(before.pss_mb, read_pss_kb(pid) / 1024)
            )
    return before
