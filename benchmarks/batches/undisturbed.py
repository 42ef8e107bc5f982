"""A batch that nobody disturbs: its rate from the client's start to its end, and what it costs."""

import time
from dataclasses import dataclass

from benchmarks.batches.ledger import read_moments
from benchmarks.batches.measured import Costs, Measured
from benchmarks.batches.scene import CREW, Load, Scene, set_up
from benchmarks.batches.yard import BEAT, CLIENT, WORKERS
from benchmarks.throughput import drain
from benchmarks.throughput.costs import measure_cpu
from benchmarks.throughput.stage import Stage
from benchmarks.throughput.systems import BULK

MOST_DRAINED = 20_000


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds up to now."""

    workers: float
    postgres: float
    redis: float


def measure_undisturbed(stage: Stage, load: Load) -> Measured:
    with set_up(stage, "undisturbed", load.lines, delay_ms=0) as scene:
        before, began_at, began = read_used(scene), time.time(), time.monotonic()
        scene.yard.start(CLIENT)
        client = scene.yard.watch_client(began + load.deadline_seconds)
        seconds, after = time.monotonic() - began, read_used(scene)
        moments = read_moments(scene.database.url)
        costs = Costs(
            client.cpu_seconds,
            after.workers - before.workers,
            after.postgres - before.postgres,
            after.redis - before.redis,
            moments.taken_in_at - began_at,
            moments.answered_at - began_at,
        )
        return Measured("undisturbed", scene.judge(load.lines), seconds, client, costs=costs)


def measure_drain_rate(stage: Stage, load: Load) -> float:
    """Jobs a second of the same workers where everything lies on the queue before they are let go."""
    jobs = min(load.lines, MOST_DRAINED)
    drained = drain.measure_drain(stage, BULK, drain.Load(CREW, jobs, 0.0, load.deadline_seconds))
    return drained.jobs_per_second


def read_used(scene: Scene) -> Used:
    ours = measure_cpu(map(scene.yard.find_pid, (*WORKERS, BEAT)))
    return Used(ours, measure_cpu([scene.stage.postgres.pid]), measure_cpu([scene.stage.valkey.pid]))
