"""What was enqueued, and what was acknowledged: one line each in a file of the bench's own.

Acknowledged is what the product must not lose: the broker took the message, or the API answered 202.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Enqueue:
    """One sending of one message; the same message may be sent more than once."""

    number: int
    message_id: str
    attempted_at: float
    acknowledged_at: float | None = None
    task_id: str | None = None
    """The Celery task whose result a poller waits for; None when it polls over HTTP."""


class Recorder:
    """Writes as it goes, so that what was acknowledged is known even if the bench itself is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = count(1)

    def attempt(self, message_id: str, task_id: str | None = None) -> int:
        """Before sending; returns the number to acknowledge it by."""
        # Drawn from a counter, as several threads may be sending.
        number = next(self._numbers)
        self._note(number=number, event="attempted", message_id=message_id, task_id=task_id)
        return number

    def acknowledge(self, number: int) -> None:
        self._note(number=number, event="acknowledged")

    def enqueues(self) -> list[Enqueue]:
        if not self._path.exists():
            return []
        return read_enqueues(json.loads(line) for line in self._path.read_text().splitlines())

    def _note(self, **line: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({**line, "at": time.time()}) + "\n")


def read_enqueues(lines: Iterable[dict[str, Any]]) -> list[Enqueue]:
    found: dict[int, Enqueue] = {}
    for line in lines:
        number, at = line["number"], line["at"]
        if line["event"] == "attempted":
            found[number] = Enqueue(number, line["message_id"], at, task_id=line["task_id"])
        else:
            found[number] = replace(found[number], acknowledged_at=at)
    return list(found.values())
