"""How long it takes from the command until it works."""

import resource
import subprocess
import sys
import time
from typing import Final

from benchmarks.growth.programs import start_all
from benchmarks.growth.section import Scale, Section

HEADINGS: Final = ("program", "seconds until ready", "CPU seconds until then")
HELP: Final = (sys.executable, "-P", "-m", "orchestrator.cli.main", "--help")
ROUNDS: Final = 3


def measure_start_up(scale: Scale) -> Section:
    with start_all(scale.stage) as started:
        rows = [(each.name, f"{each.seconds:.2f}", f"{each.cpu_seconds:.2f}") for each in started]
    seconds, cpu_seconds = min(time_help() for _ in range(1 if scale.is_short else ROUNDS))
    return Section(
        "Start-up",
        "A worker is ready when it takes messages, beat when it sends, the API when it answers `/health`; one after the"
        " other, on servers that run already.",
        HEADINGS,
        [*rows, ("`llmyard --help`", f"{seconds:.2f}", f"{cpu_seconds:.2f}")],
    )


def time_help() -> tuple[float, float]:
    """Seconds, and CPU seconds."""
    began_at, before = time.monotonic(), read_children_cpu()
    subprocess.run(HELP, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began_at, read_children_cpu() - before


def read_children_cpu() -> float:
    """Of those that have ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
