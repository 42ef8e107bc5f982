"""What comes of a measurement."""

from dataclasses import dataclass

from benchmarks.batches.checker import Verdict
from benchmarks.batches.footprint import Footprint


@dataclass(frozen=True, slots=True)
class Costs:
    """Of an undisturbed batch: CPU seconds, user and system, from the client's start to its end."""

    client: float
    workers: float
    """And beat."""
    postgres: float
    redis: float
    taken_in_seconds: float
    """From the client's start until the last line of the input was in the ledger."""
    answered_seconds: float
    """Until the last line was answered."""


@dataclass(frozen=True, slots=True)
class Blow:
    """Somebody who was killed."""

    name: str
    share: float
    """Of the lines that were to be answered by then."""
    answered: int
    """Lines that were."""
    was_alive: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """One batch, from the client's first start to its end."""

    title: str
    verdict: Verdict
    seconds: float
    client: Footprint
    """The one that used the most memory."""
    blows: tuple[Blow, ...] = ()
    costs: Costs | None = None

    @property
    def lines_per_second(self) -> float:
        return self.verdict.output.rows / self.seconds

    @property
    def faults(self) -> tuple[str, ...]:
        """In words; none is a pass."""
        missed = (f"{blow.name} had ended before its turn" for blow in self.blows if not blow.was_alive)
        return (*self.verdict.faults, *missed)
