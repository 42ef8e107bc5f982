"""What a part of the bench is given, and what it gives back. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.throughput.stage import Stage


@dataclass(frozen=True, slots=True)
class Scale:
    """One run."""

    stage: Stage
    is_short: bool


@dataclass(frozen=True, slots=True)
class Check:
    """A figure that has a bound."""

    title: str
    figure: float
    bound: float
    """At most; at least, where `is_least`."""
    is_least: bool = False

    @property
    def is_held(self) -> bool:
        return self.figure >= self.bound if self.is_least else self.figure <= self.bound


@dataclass(frozen=True, slots=True)
class Section:
    """A table, and what is to be held of it."""

    title: str
    meaning: str
    """What was done, for whoever reads the table."""
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    checks: Sequence[Check] = ()
