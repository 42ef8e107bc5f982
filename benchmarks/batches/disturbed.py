"""A batch in which everybody is killed with SIGKILL, and started again at once with the same command."""

import time
from typing import Final

from benchmarks.batches.footprint import Footprint
from benchmarks.batches.ledger import count_answered
from benchmarks.batches.measured import Blow, Measured
from benchmarks.batches.scene import Load, Scene, set_up
from benchmarks.batches.yard import BEAT, CLIENT, LOOK_SECONDS, WORKERS
from benchmarks.throughput.stage import Stage

BLOWS: Final = (
    (0.30, (CLIENT,)),
    (0.33, (WORKERS[0],)),
    (0.36, (BEAT,)),
    (0.50, (BEAT,)),
    (0.70, (CLIENT, WORKERS[1], BEAT)),
)
"""From which share of answered lines on who is killed."""
DELAY_MS: Final = 20.0
"""That the model takes: so that a worker is killed with calls under way."""


def measure_disturbed(stage: Stage, load: Load) -> Measured:
    with set_up(stage, "disturbed", load.lines, DELAY_MS) as scene:
        began = time.monotonic()
        deadline = began + load.deadline_seconds
        scene.yard.start(CLIENT)
        blows: list[Blow] = []
        clients: list[Footprint] = []
        for share, names in BLOWS:
            wait_for_share(scene, share, load.lines, deadline)
            clients.append(scene.yard.client_footprint)
            answered = count_answered(scene.database.url)
            blows += [Blow(name, share, answered, scene.yard.kill(name)) for name in names]
            for name in names:
                scene.yard.start(name)
        clients.append(scene.yard.watch_client(deadline))
        seconds = time.monotonic() - began
        verdict = scene.judge(load.lines)
        return Measured("with kills", verdict, seconds, max(clients, key=lambda each: each.rss_mb), tuple(blows))


def wait_for_share(scene: Scene, share: float, lines: int, deadline: float) -> None:
    """Or for the client's end, should nobody be left to disturb.

    Raises:
        TimeoutError: naming the share.
    """
    while scene.yard.is_client_running() and count_answered(scene.database.url) < share * lines:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{share:.0%} of the lines were not answered in time:\n{scene.yard.read_client_log()}")
        time.sleep(LOOK_SECONDS)
