"""How long each deployment lately took, and how many calls it has in flight, kept in memory by one pool."""

from shared.clock import Clock

SMOOTHING = 0.3
"""Weight of the newest observation; about the last five count."""
FORGET_AFTER_SECONDS = 60.0
"""Older observations say nothing any more, so that a deployment that was slow is tried again."""
FAILURE_SECONDS = 10.0
"""What a failure counts for at least: who refuses at once is not quick."""


class Health:
    """A moving average of seconds for each deployment, and a count."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._observed_at: dict[str, float] = {}
        self._in_flight: dict[str, int] = {}

    def begin(self, deployment: str) -> None:
        self._in_flight[deployment] = self.count_in_flight(deployment) + 1

    def end(self, deployment: str) -> None:
        self._in_flight[deployment] -= 1

    def count_in_flight(self, deployment: str) -> int:
        return self._in_flight.get(deployment, 0)

    def record_answer(self, deployment: str, seconds: float) -> None:
        """`seconds` is what the deployment cost the caller, failed tries and the waits between them included."""
        known = self.find_latency(deployment)
        self._seconds[deployment] = seconds if known is None else known + SMOOTHING * (seconds - known)
        self._observed_at[deployment] = self._clock.monotonic()

    def record_failure(self, deployment: str, seconds: float) -> None:
        """It cost the caller so much, for nothing."""
        self.record_answer(deployment, max(seconds, FAILURE_SECONDS))

    def find_latency(self, deployment: str) -> float | None:
        """Seconds; None where nothing was lately heard of it."""
        if deployment not in self._seconds:
            return None
        is_recent = self._clock.monotonic() - self._observed_at[deployment] <= FORGET_AFTER_SECONDS
        return self._seconds[deployment] if is_recent else None
