"""All that was measured in one run, and the one figure that each table shows of several rounds."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.throughput.drain import Drained
from benchmarks.throughput.latency import Latency, Pace
from benchmarks.throughput.scenarios import Scenario
from benchmarks.throughput.systems import FLOOR, PEERS_MEASURED, System


@dataclass(slots=True)
class Record:
    """Filled as the run goes on."""

    ceiling: float
    """Requests a second that the model server can answer."""
    drains: dict[tuple[int, str], list[Drained]] = field(default_factory=dict)
    """By scenario and system, one for each round."""
    latencies: dict[str, list[tuple[Pace, Latency]]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    """What broke off or came out wrong, in words."""

    def add(self, scenario: Scenario, system: System, drained: Drained) -> None:
        self.drains.setdefault((scenario.number, system.name), []).append(drained)
        if drained.is_wrong:
            self.troubles.append(
                f"{scenario.name}, {system.name}: {drained.calls} calls for {drained.jobs} jobs,"
                f" {drained.records} whole records of {drained.jobs + drained.warm}"
            )

    def find_best(self, scenario: Scenario, system: System) -> Drained | None:
        """The round with the highest rate: what else a shared machine does only ever takes away."""
        rounds = self.drains.get((scenario.number, system.name), [])
        return max(rounds, key=lambda drained: drained.jobs_per_second, default=None)

    def find_least_rate(self, scenario: Scenario, system: System) -> float | None:
        rounds = self.drains.get((scenario.number, system.name), [])
        return min((drained.jobs_per_second for drained in rounds), default=None)

    def find_rate(self, scenario: Scenario, system: System) -> float | None:
        best = self.find_best(scenario, system)
        return None if best is None else best.jobs_per_second

    def find_best_peer_rate(self, scenario: Scenario) -> float | None:
        rates = (self.find_rate(scenario, peer) for peer in PEERS_MEASURED)
        return max((rate for rate in rates if rate is not None), default=None)

    def find_floor_rate(self, scenario: Scenario) -> float | None:
        return self.find_rate(scenario, FLOOR)

    def find_latency(self, system: System, rate: float) -> Latency | None:
        return next((found for pace, found in self.latencies.get(system.name, []) if pace.rate == rate), None)

    def systems_of(self, scenario: Scenario, systems: tuple[System, ...]) -> Iterator[System]:
        return (system for system in systems if (scenario.number, system.name) in self.drains)
