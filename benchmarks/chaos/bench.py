"""What a row is given, and what it gives back."""

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from benchmarks.chaos.checker import Verdict
from benchmarks.chaos.template import make_database_directory
from benchmarks.chaos.yard import Yard, YardSettings

FigureT = TypeVar("FigureT")


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a row."""

    verdict: Verdict | None
    """None for a row that counts no messages, such as one that measures a claim."""
    notes: str
    """n, and the row's own figures; stands in the table."""
    wrong: tuple[str, ...] = ()
    """The row's own conditions that hold on any machine, and did not; in words."""
    missed: tuple[str, ...] = ()
    """Its rates and waits, which a busy machine may miss."""
    recovery_seconds: float | None = None
    """From the end of the last fault until the last job was done."""
    is_broken_off: bool = False
    """The row did not come to its end."""
    is_not_run: bool = False
    """This machine lacks what the row needs: nothing was shown, and nothing was wrong."""

    @property
    def is_wrong(self) -> bool:
        """Whatever the machine: something was lost, doubled, made up or done wrong, or nothing was shown."""
        return self.is_broken_off or bool(self.wrong) or bool(self.verdict and self.verdict.faults)

    @property
    def faults(self) -> tuple[str, ...]:
        return (*(self.verdict.faults if self.verdict else ()), *self.wrong, *self.missed)


def list_faults(conditions: Mapping[str, bool]) -> tuple[str, ...]:
    """Of conditions that should not be, those that are."""
    return tuple(fault for fault, is_so in conditions.items() if is_so)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the chaos table."""

    number: int
    title: str
    run: Callable[["Bench"], Finding]


class Bench:
    """One run of the bench."""

    def __init__(self, directory: Path, *, seed: int = 1, is_long: bool = False, is_kept: bool = False) -> None:
        self.is_long = is_long
        self._directory = directory
        self._seed = seed
        self._is_kept = is_kept
        self._yards = 0
        self.begin(0)

    def begin(self, row: int) -> None:
        """A row's chances are its own, whichever rows ran before it."""
        self.random = random.Random(f"{self._seed} {row}")  # noqa: S311 (faults are to be repeatable, not secret)

    def choose(self, short: FigureT, long: FigureT) -> FigureT:
        return long if self.is_long else short

    @contextmanager
    def open_yard(self, settings: YardSettings | None = None) -> Iterator[Yard]:
        """A whole llmyard of its own; every process of it is ended with the block."""
        self._yards += 1
        directory = self._directory / f"yard{self._yards}"
        directory.mkdir()
        copy_as_it_is(self._database_template, directory / "postgres")
        with Yard(directory, settings or YardSettings()) as yard:
            yield yard
        if not self._is_kept:
            shutil.rmtree(directory, ignore_errors=True)

    @cached_property
    def _database_template(self) -> Path:
        return make_database_directory(self._directory / "template")


def copy_as_it_is(source: Path, target: Path) -> None:
    """Owners too: the files may belong to the account that runs Postgres."""
    subprocess.run((shutil.which("cp") or "cp", "-a", str(source), str(target)), check=True)
