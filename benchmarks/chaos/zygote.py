"""One process that has imported everything and opened nothing: it forks workers, each in a tenth of a second.

    python -m benchmarks.chaos.zygote        reads orders as JSON lines, answers each with a pid

Importing costs 2 s of CPU a worker, too much for thousands of kills. What is forked then goes through Celery's whole
start as `celery -A orchestrator.celery_app …` does, in a session of its own.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import celery.app.amqp
import celery.app.control
import celery.app.events
import celery.backends.redis
import celery.bin.beat
import celery.bin.celery
import celery.bin.worker
import celery.concurrency.thread
import celery.worker.components
import celery.worker.consumer  # noqa: F401 (for the forks)
import sqlalchemy.dialects.postgresql.asyncpg  # noqa: F401 (for the forks)

import llm_pool.providers.openai_compatible  # noqa: F401 (for the forks)
import orchestrator.tasks
import orchestrator.worker  # noqa: F401 (for the forks)
from orchestrator.celery_app import app


def main() -> None:
    living: set[int] = set()
    for line in sys.stdin:
        living -= collect(living)
        pid = os.fork()
        if pid == 0:
            become(json.loads(line))
        living.add(pid)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    for pid in living - collect(living):
        os.kill(pid, signal.SIGKILL)  # nobody is left to end them in order


def collect(living: set[int]) -> set[int]:
    """Those who have ended; until then their pids belong to nobody else."""
    return {pid for pid in living if os.waitpid(pid, os.WNOHANG)[0]}


def become(order: dict[str, Any]) -> None:
    """The forked child's whole life."""
    os.setsid()
    output = os.open(Path(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.environ.update(order["environment"])
    os.chdir(order["directory"])
    status = 1
    try:
        sys.argv = ["celery", *order["arguments"]]
        app.start(order["arguments"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
