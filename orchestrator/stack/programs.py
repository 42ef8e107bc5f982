"""The command line of each of our programs: the same one whether `llmyard up` starts it or `llmyard worker` becomes it.

No URL and no password stands in any: a command line can be read by everyone on the machine.
"""

import sys
from pathlib import Path

# -P keeps a directory that happens to be called `shared` where the user stands from hiding ours.
_PYTHON = (sys.executable, "-P", "-m")
_LLMYARD = (*_PYTHON, "orchestrator.cli.main")
_CELERY = (*_PYTHON, "celery", "-A", "orchestrator.celery_app")


def build_migrate_command() -> tuple[str, ...]:
    return (*_LLMYARD, "migrate")


def build_worker_command(hostname: str, log_level: str = "INFO") -> tuple[str, ...]:
    """Pool and concurrency come from the application's settings.

    Nobody here elects a leader: that is what each worker would hear the heartbeats of all others for.
    """
    return (*_CELERY, "worker", f"--loglevel={log_level}", f"--hostname={hostname}", "--without-gossip")


def build_kept_command(command: tuple[str, ...]) -> tuple[str, ...]:
    """The same program, started again when it dies."""
    return (*_PYTHON, "orchestrator.stack.kept_alive", *command)


def build_beat_command(schedule: Path | None, log_level: str = "INFO") -> tuple[str, ...]:
    """`schedule` is where beat remembers what it last sent; None keeps Celery's own place, the working directory."""
    place = () if schedule is None else ("-s", str(schedule))
    return (*_CELERY, "beat", f"--loglevel={log_level}", *place, "--pidfile=")


def build_flower_command(address: str, port: int) -> tuple[str, ...]:
    """Bounded: a task kept costs 4.4 kB, and workers of a fleet come and go."""
    bounds = ("--max_tasks=10000", "--purge_offline_workers=300")
    return (*_CELERY, "flower", f"--address={address}", f"--port={port}", *bounds)


def build_api_command(host: str, port: int) -> tuple[str, ...]:
    return (*_LLMYARD, "api", f"--host={host}", f"--port={port}")
