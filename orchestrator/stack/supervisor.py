"""Several children as one thing: started in order, watched, ended in reverse order, none left behind."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.stack.children import Child, ChildSpec, StackError
from orchestrator.stack.data_directory import logs_directory
from orchestrator.stack.leftovers import record_children
from orchestrator.stack.restarts import RestartPolicy

_POLL_SECONDS = 0.05


class StopRequestedError(StackError):
    """Somebody asked for the end while something was still starting."""


@dataclass(frozen=True, slots=True)
class _PendingRestart:
    spec: ChildSpec
    due_at: float
    """On the monotonic clock."""


class Supervisor:
    """Runs children in one data directory, whose lock the caller holds.

    `request_stop` only counts, so it may be called from a signal handler; everything else belongs to one thread.
    """

    def __init__(self, directory: Path, say: Callable[[str], None], policy: RestartPolicy | None = None) -> None:
        self._directory = directory
        self._say = say
        self._policy = policy or RestartPolicy()
        self._children: dict[str, Child] = {}
        self._deaths: dict[str, list[float]] = defaultdict(list)
        self._pending: dict[str, _PendingRestart] = {}
        self._stop_requests = 0

    @property
    def children(self) -> tuple[Child, ...]:
        """In the order of their start."""
        return tuple(self._children.values())

    def request_stop(self) -> None:
        """Once for an orderly end, twice for an end at once."""
        self._stop_requests += 1

    def start(self, spec: ChildSpec) -> Child:
        """Start a child and wait until it is ready.

        Raises:
            StackError: it died or did not become ready in time.
            StopRequestedError: the end was asked for meanwhile.
        """
        return self.start_together(spec)[0]

    def start_together(self, *specs: ChildSpec) -> tuple[Child, ...]:
        """Start children that do not need each other, then wait until all are ready; raises as `start` does."""
        children = tuple(self._spawn(spec) for spec in specs)
        for child in children:
            while not child.is_ready():
                self._check_progress(child)
                time.sleep(_POLL_SECONDS)
        return children

    def run_to_end(self, spec: ChildSpec) -> None:
        """Run a child that is a step rather than a service; it must exit with 0."""
        child = self._spawn(spec)
        while child.exit_status() is None:
            self._raise_if_stopping()
            time.sleep(_POLL_SECONDS)
        self._forget(child)
        if child.exit_status() != 0:
            raise StackError(_describe_failure(child, child.describe_exit()))

    def watch(self) -> None:
        """Until the end is asked for.

        Raises:
            StackError: a child died that the rest cannot do without.
        """
        while not self._stop_requests:
            for child in self.children:
                if child.exit_status() is not None:
                    self._handle_death(child)
            self._start_what_is_due()
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End all, last started first. Safe to call twice."""
        self._pending.clear()
        for child in reversed(self.children):
            child.end(should_hurry=lambda: self._stop_requests > 1)
            self._forget(child)

    def _spawn(self, spec: ChildSpec) -> Child:
        self._raise_if_stopping()
        child = Child(spec, logs_directory(self._directory))
        self._children[spec.name] = child
        record_children(self._directory, self.children)
        return child

    def _forget(self, child: Child) -> None:
        del self._children[child.spec.name]
        record_children(self._directory, self.children)

    def _check_progress(self, child: Child) -> None:
        self._raise_if_stopping()
        if child.exit_status() is not None:
            raise StackError(_describe_failure(child, f"did not start, it {child.describe_exit()}"))
        if time.monotonic() - child.started_at > child.spec.start_timeout_seconds:
            waited = f"was not ready after {child.spec.start_timeout_seconds:g} seconds"
            raise StackError(_describe_failure(child, waited))

    def _raise_if_stopping(self) -> None:
        if self._stop_requests:
            raise StopRequestedError("Stopped while starting.")

    def _handle_death(self, child: Child) -> None:
        child.end()  # what it started itself may still be there
        self._forget(child)
        delay = self._decide_restart(child.spec)
        if delay is None:
            raise StackError(_describe_failure(child, child.describe_exit()))
        self._say(f"{child.spec.name} {child.describe_exit()} and is started again in {delay:g} s; see {child.log}")
        self._pending[child.spec.name] = _PendingRestart(child.spec, time.monotonic() + delay)

    def _decide_restart(self, spec: ChildSpec) -> float | None:
        if not spec.may_restart:
            return None
        now = time.monotonic()
        self._deaths[spec.name].append(now)
        return self._policy.decide_delay(self._deaths[spec.name], now)

    def _start_what_is_due(self) -> None:
        for name, restart in list(self._pending.items()):
            if time.monotonic() >= restart.due_at and not self._stop_requests:
                del self._pending[name]
                self._spawn(restart.spec)


def _describe_failure(child: Child, what: str) -> str:
    return f"{child.spec.name} {what}. The end of {child.log}:\n{child.log_tail() or '(nothing was logged)'}"
