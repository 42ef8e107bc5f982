"""What a call in flight costs: one worker process, a model that takes 2 s, and more and more of them at once."""

from typing import Final

from benchmarks.growth.section import Check, Scale, Section
from benchmarks.throughput.drain import Drained, Load, measure_drain
from benchmarks.throughput.systems import OURS, Crew

CALL_SECONDS: Final = 2.0
SIZES: Final = (64, 512, 2000)
WAVES: Final = 15
"""Jobs for each place; fewer in the short form."""
SHORT_WAVES: Final = 3
LEAST_SHARE: Final = 0.9
MOST_PSS_MB: Final = 300.0
HEADINGS: Final = (
    "in flight", "jobs/s", "of the ideal rate", "peak at the model", "CPU ms a job: worker", "Postgres", "PSS MB",
)  # fmt: skip


def measure_in_flight(scale: Scale) -> Section:
    sizes, waves = (SIZES[:2], SHORT_WAVES) if scale.is_short else (SIZES, WAVES)
    found = {size: measure(scale, size, waves) for size in sizes}
    largest = sizes[-1]
    return Section(
        "Growth with calls in flight",
        f"One worker process; the model takes {CALL_SECONDS:.0f} s for each call; {waves} jobs for each place. At the"
        " ideal rate every place is taken all the time.",
        HEADINGS,
        [build_row(size, drained) for size, drained in found.items()],
        (
            Check(f"{largest:,} in flight: share of the ideal rate", share(largest, found[largest]), LEAST_SHARE, True),
            Check(f"{largest:,} in flight: PSS MB", found[largest].pss_mb, MOST_PSS_MB),
        ),
    )


def measure(scale: Scale, size: int, waves: int) -> Drained:
    load = Load(Crew(1, size), size * waves, CALL_SECONDS * 1000, deadline_seconds=4 * CALL_SECONDS * waves)
    return measure_drain(scale.stage, OURS, load)


def share(size: int, drained: Drained) -> float:
    return drained.jobs_per_second / (size / CALL_SECONDS)


def build_row(size: int, drained: Drained) -> tuple[str, ...]:
    return (
        f"{size:,}",
        f"{drained.jobs_per_second:,.0f}",
        f"{share(size, drained):.2f}",
        f"{drained.peak:,}",
        f"{drained.cost.workers_ms:.2f}",
        f"{drained.cost.postgres_ms:.2f}",
        f"{drained.pss_mb:.0f}",
    )
