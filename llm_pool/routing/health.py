"""How long each deployment lately took, kept in memory by one pool."""

from collections.abc import Mapping

from shared.clock import Clock

SMOOTHING = 0.3
"""Weight of the newest observation; about the last five count."""
FORGET_AFTER_SECONDS = 60.0
"""Older observations say nothing any more, so that a deployment that was slow is tried again."""


class Health:
    """A moving average of seconds for each deployment."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._observed_at: dict[str, float] = {}

    def record(self, deployment: str, seconds: float) -> None:
        """`seconds` is what the deployment cost the caller: retries and waits count, answered or not."""
        known = self.latencies().get(deployment, seconds)
        self._seconds[deployment] = known + SMOOTHING * (seconds - known)
        self._observed_at[deployment] = self._clock.monotonic()

    def latencies(self) -> Mapping[str, float]:
        """Seconds by deployment name; those not lately heard of are not in it."""
        oldest = self._clock.monotonic() - FORGET_AFTER_SECONDS
        return {name: seconds for name, seconds in self._seconds.items() if self._observed_at[name] >= oldest}
