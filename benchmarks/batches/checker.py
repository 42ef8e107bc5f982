"""Holds the output file, the ledger and the model server's own count against what was asked. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.batches.model_server import build_answer

NAMED: Final = 5
"""Lines of a fault that are named."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What stands in the database when the client has ended."""

    states: Mapping[str, int]
    """Jobs by state."""
    results: int
    without_result: int
    """Jobs that have none."""
    leases: int
    """Runs still in hand."""
    outcomes: Mapping[str, int]
    """Runs by how they ended."""
    calls_on_record: Mapping[int, int]
    """By line: of each run its attempts, and one where it died before it could write them down. Lines with one call
    are left out."""

    @property
    def jobs(self) -> int:
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class Output:
    """What stands in the file, as line numbers of the input; nothing in it but `rows` is a pass."""

    rows: int
    lost: tuple[int, ...]
    doubled: tuple[int, ...]
    out_of_order: tuple[int, ...]
    """Behind a line with a greater number."""
    wrong: tuple[int, ...]
    """Failed, or with another line's answer; of lines that do not stand in the input too."""
    unreadable: tuple[int, ...] = ()
    """Rows of the file, from 1."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One measurement."""

    attempted: int
    output: Output
    ledger: Ledger
    calls: int
    extra_calls: int
    """Beyond one a line."""
    unexplained: tuple[int, ...]
    """Lines that were asked more often than the ledger has runs and attempts for."""

    @property
    def explained_calls(self) -> int:
        return self.extra_calls - len(self.unexplained)

    @property
    def faults(self) -> tuple[str, ...]:
        """In words; none is a pass."""
        found = {
            "lost": self.output.lost,
            "doubled": self.output.doubled,
            "out of order": self.output.out_of_order,
            "failed or with another's answer": self.output.wrong,
            "rows that cannot be read": self.output.unreadable,
            "called without a record of it": self.unexplained,
        }
        lines = [f"{len(numbers)} {word}: {name_lines(numbers)}" for word, numbers in found.items() if numbers]
        return (*lines, *list_ledger_faults(self.attempted, self.ledger))


def check(attempted: int, output: Output, ledger: Ledger, calls: Mapping[int, int]) -> Verdict:
    total = sum(calls.values())
    return Verdict(
        attempted=attempted,
        output=output,
        ledger=ledger,
        calls=total,
        extra_calls=total - sum(1 <= line <= attempted for line in calls),
        unexplained=tuple(
            line
            for line, times in sorted(calls.items())
            for _ in range(max(0, times - count_on_record(line, attempted, ledger)))
        ),
    )


def check_output(rows: Iterable[bytes], lines: int) -> Output:
    """Reads row by row: a file of any length."""
    times, greatest, count = bytearray(lines + 1), 0, 0
    doubled: list[int] = []
    out_of_order: list[int] = []
    wrong: list[int] = []
    unreadable: list[int] = []
    for count, row in enumerate(rows, start=1):
        answer = read_row(row)
        if answer is None:
            unreadable.append(count)
            continue
        line = answer["line"]
        is_known = 1 <= line <= lines
        if not is_known or not is_right(answer):
            wrong.append(line)
        if is_known and times[line]:
            doubled.append(line)
        elif line < greatest:
            out_of_order.append(line)
        if is_known:
            times[line] = 1
        greatest = max(greatest, line)
    lost = tuple(line for line in range(1, lines + 1) if not times[line])
    return Output(count, lost, tuple(doubled), tuple(out_of_order), tuple(wrong), tuple(unreadable))


def read_row(row: bytes) -> dict[str, Any] | None:
    """None where it is no whole line of an output."""
    try:
        answer = json.loads(row)
    except ValueError:
        return None
    if not row.endswith(b"\n") or not isinstance(answer, dict) or not isinstance(answer.get("line"), int):
        return None
    return answer


def is_right(answer: Mapping[str, Any]) -> bool:
    return answer.get("state") == "succeeded" and answer.get("content") == build_answer(answer["line"])


def count_on_record(line: int, attempted: int, ledger: Ledger) -> int:
    return ledger.calls_on_record.get(line, 1) if 1 <= line <= attempted else 0


def list_ledger_faults(attempted: int, ledger: Ledger) -> list[str]:
    found = {
        "jobs": (ledger.jobs, attempted),
        "jobs succeeded": (ledger.states.get("succeeded", 0), attempted),
        "results": (ledger.results, attempted),
        "jobs without a result": (ledger.without_result, 0),
        "runs still in hand": (ledger.leases, 0),
    }
    return [f"{count} {word} instead of {wanted}" for word, (count, wanted) in found.items() if count != wanted]


def name_lines(numbers: tuple[int, ...]) -> str:
    more = ", …" if len(numbers) > NAMED else ""
    return ", ".join(map(str, numbers[:NAMED])) + more
