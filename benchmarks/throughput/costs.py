"""What the work costs: CPU of process trees, memory as the kernel shares it out, and what Postgres had to write."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that only ever grows, at one moment."""

    at: float
    """Seconds, by the monotonic clock."""
    workers_cpu: float
    """Seconds, as the next two; user and system, with all children."""
    postgres_cpu: float
    redis_cpu: float
    wal_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one job, between two readings."""

    workers_ms: float
    """CPU."""
    postgres_ms: float
    redis_ms: float
    wal_bytes: float

    @property
    def all_ms(self) -> float:
        """CPU of the three."""
        return self.workers_ms + self.postgres_ms + self.redis_ms


def compare(before: Reading, after: Reading, jobs: int) -> Cost:
    return Cost(
        (after.workers_cpu - before.workers_cpu) / jobs * 1e3,
        (after.postgres_cpu - before.postgres_cpu) / jobs * 1e3,
        (after.redis_cpu - before.redis_cpu) / jobs * 1e3,
        (after.wal_bytes - before.wal_bytes) / jobs,
    )


def find_tree(pid: int) -> list[psutil.Process]:
    """The process and all that came of it; nothing when it is gone."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def find_trees(pids: Iterable[int]) -> Iterator[psutil.Process]:
    return (process for pid in pids for process in find_tree(pid))


def measure_cpu(pids: Iterable[int]) -> float:
    """Seconds of these trees; what an ended child used stands with its parent."""
    return sum(sum(process.cpu_times()[:4]) for process in find_trees(pids))


def measure_pss_mb(pids: Iterable[int]) -> float:
    """Of these trees; memory that processes share is shared out among them."""
    return sum(read_pss_kb(process.pid) for process in find_trees(pids)) / 1024


def read_pss_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
