"""The children of a stack, on disk: so that what a killed `llmyard up` left running is ended by the next one."""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from orchestrator.stack.children import Child, kill_all, kill_group, wait_for_end
from orchestrator.stack.data_directory import write_private

_FILE = "children.json"
# The boot time that creation times are counted from moves when the clock is set.
_SAME_CREATION_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ChildRecord:
    """Enough to find one process again, and to be sure that it is not another that got its pid."""

    name: str
    pid: int
    create_time: float
    """Seconds since 1970, by the kernel."""
    stop_signal: int
    stop_grace_seconds: float

    def find_process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            age_difference = abs(process.create_time() - self.create_time)
        except psutil.NoSuchProcess:
            return None
        return process if age_difference <= _SAME_CREATION_SECONDS else None


def record_children(directory: Path, children: Iterable[Child]) -> None:
    records = [asdict(_build_record(child)) for child in children]
    write_private(directory / _FILE, json.dumps(records, indent=1))


def end_leftovers(directory: Path, say: Callable[[str], None]) -> None:
    """Only under the directory's lock: whoever is recorded then has lost its supervisor."""
    for record in reversed(_read_records(directory)):
        process = record.find_process()
        if process is not None:
            say(f"Ending {record.name} (pid {record.pid}), left over from a run that was killed.")
            _end(process, record)
    (directory / _FILE).unlink(missing_ok=True)


def _end(process: psutil.Process, record: ChildRecord) -> None:
    with suppress(psutil.NoSuchProcess):
        descendants = process.children(recursive=True)
        process.send_signal(record.stop_signal)
        wait_for_end([process], record.stop_grace_seconds)
        kill_group(record.pid)
        kill_all([process, *descendants])


def _read_records(directory: Path) -> list[ChildRecord]:
    try:
        return [ChildRecord(**record) for record in json.loads((directory / _FILE).read_text())]
    except FileNotFoundError:
        return []


def _build_record(child: Child) -> ChildRecord:
    spec = child.spec
    return ChildRecord(spec.name, child.pid, child.create_time, int(spec.stop_signal), spec.stop_grace_seconds)
