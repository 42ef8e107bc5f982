"""The directory a stack lives in: one stack at a time, and its secrets for its owner alone."""

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.stack.children import StackError

_LOCK_FILE = "lock"


def make_data_directory(directory: Path) -> Path:
    """Absolute, and there."""
    resolved = directory.expanduser().resolve()
    try:
        resolved.mkdir(mode=0o700, parents=True, exist_ok=True)
        logs_directory(resolved).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StackError(f"{resolved} cannot be used as data directory: {error.strerror}.") from error
    return resolved


def make_metrics_directory(directory: Path) -> Path:
    """Empty: what the processes of an earlier stack counted is not ours."""
    metrics = directory / "metrics"
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir(mode=0o700)
    return metrics


def logs_directory(directory: Path) -> Path:
    return directory / "logs"


@contextmanager
def only_stack_in(directory: Path) -> Iterator[None]:
    """Hold the directory; the kernel lets go of it however this process ends."""
    with (directory / _LOCK_FILE).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "just starting"
            raise StackError(
                f"llmyard up is already running on {directory} ({holder}): stop it first, or choose another --data."
            ) from error
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


def write_private(path: Path, text: str) -> None:
    """At once or not at all, and readable by its owner only from the first moment on."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(name).replace(path)
