"""What it costs while nobody wants anything: CPU and memory of worker, beat and API, and of the servers behind them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.growth.programs import NAMES, start_all
from benchmarks.growth.section import Check, Scale, Section
from benchmarks.throughput.costs import measure_cpu, measure_pss_mb

SETTLE_SECONDS: Final = 8.0
"""What was started has then seen its first sweep."""
MOST_CPU_PERCENT: Final = 1.0
MOST_PSS_MB: Final = 350.0
HEADINGS: Final = ("program", "CPU: % of a core", "PSS MB")


@dataclass(frozen=True, slots=True)
class Rest:
    """Of one program that has nothing to do, or of several."""

    cpu_percent: float
    """Of a core."""
    pss_mb: float

    def __add__(self, other: "Rest") -> "Rest":
        return Rest(self.cpu_percent + other.cpu_percent, self.pss_mb + other.pss_mb)


def measure_idle(scale: Scale) -> Section:
    seconds = 10.0 if scale.is_short else 60.0
    with start_all(scale.stage) as started:
        ours = {each.name: each.program.pid for each in started}
        rests = watch({**ours, "Postgres": scale.stage.postgres.pid, "Valkey": scale.stage.valkey.pid}, seconds)
    return build_section(rests, seconds)


def watch(pids: Mapping[str, int], seconds: float) -> dict[str, Rest]:
    time.sleep(SETTLE_SECONDS)
    before = {name: measure_cpu([pid]) for name, pid in pids.items()}
    began_at = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - began_at
    return {
        name: Rest((measure_cpu([pid]) - before[name]) / elapsed * 100, measure_pss_mb([pid]))
        for name, pid in pids.items()
    }


def build_section(rests: Mapping[str, Rest], seconds: float) -> Section:
    ours = sum((rests[name] for name in NAMES), start=Rest(0.0, 0.0))
    rows = {**{name: rests[name] for name in NAMES}, "the three together": ours, **rests}
    return Section(
        "Idle",
        f"Nothing is queued and nothing parked, for {seconds:.0f} s. PSS shares out what processes have in common.",
        HEADINGS,
        [(name, f"{rest.cpu_percent:.2f}", f"{rest.pss_mb:.0f}") for name, rest in rows.items()],
        (
            Check("idle worker, beat and API: % of a core", ours.cpu_percent, MOST_CPU_PERCENT),
            Check("idle worker, beat and API: PSS MB", ours.pss_mb, MOST_PSS_MB),
        ),
    )
