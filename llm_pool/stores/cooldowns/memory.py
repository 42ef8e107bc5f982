"""Cooldowns of one process; `redis.py` does the same for a fleet, step by step alike."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from llm_pool.policies import CooldownPolicy
from llm_pool.stores.cooldowns.base import RAMP_DOUBLINGS, Admission, CooldownState, Cooling, Phase
from shared.clock import Clock


@dataclass(slots=True)
class _State:
    """Of a deployment that is not plainly open; moments are the clock's."""

    failures: int = 0
    ends_at: float | None = None
    """Of the latest cooling, until a probe was answered."""
    length_seconds: float = 0.0
    """What the next failed probe doubles."""
    probe: str = ""
    probe_ends_at: float = 0.0
    ramp_at: float | None = None
    places: dict[str, float] = field(default_factory=dict)
    """Calls of the ramp, and when each lease ends."""

    def cool_until(self, ends_at: float) -> None:
        """A probe that is under way stays the only one until it ends."""
        self.ends_at = max(ends_at, self.ends_at or ends_at)
        self.ramp_at = None
        self.places.clear()

    def take_back(self, admission: Admission) -> bool:
        """Whatever place it held; true if it was the probe."""
        self.places.pop(admission.token, None)
        if not admission.token or admission.token != self.probe:
            return False
        self.probe = ""
        return True


class MemoryCooldowns:
    """A deployment nothing happened to costs one look into a dictionary."""

    def __init__(self, policy: CooldownPolicy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._states: dict[str, _State] = {}
        self._open: dict[str, Admission] = {}
        self._tokens: Iterator[int] = itertools.count(1)

    async def admit(self, key: str, lease_seconds: float) -> Admission:
        """See `CooldownStore.admit`."""
        if key in self._states:
            return self._admit(key, self._states[key], lease_seconds)
        if key not in self._open:
            self._open[key] = Admission(key, "open")
        return self._open[key]

    async def succeed(self, admission: Admission) -> None:
        """See `CooldownStore.succeed`."""
        state = self._states.get(admission.key)
        if state is None:
            return
        phase, is_probe = self._find_phase(state), state.take_back(admission)
        match phase:
            case "half_open" if is_probe:
                self._begin_ramp(admission.key, state)
            case "ramping":
                state.failures = 0
            case "open":
                del self._states[admission.key]

    async def fail(self, admission: Admission, cool_seconds: float | None) -> Cooling | None:
        """See `CooldownStore.fail`."""
        state = self._states.setdefault(admission.key, _State())
        phase, now = self._find_phase(state), self._clock.monotonic()
        is_probe = state.take_back(admission) and phase == "half_open"
        state.failures += 1
        seconds = self._choose_seconds(state, phase, is_probe, cool_seconds)
        if seconds is not None:
            state.cool_until(now + seconds)
        if self._find_phase(state) != "cooling":
            return None
        return Cooling((state.ends_at or now) - now, is_new=phase != "cooling")

    async def release(self, admission: Admission) -> None:
        """See `CooldownStore.release`."""
        state = self._states.get(admission.key)
        if state is not None:
            state.take_back(admission)

    async def cool(self, key: str, seconds: float) -> None:
        """See `CooldownStore.cool`."""
        state = self._states.setdefault(key, _State())
        self._find_phase(state)
        state.length_seconds = max(state.length_seconds, self._policy.first_seconds)
        state.cool_until(self._clock.monotonic() + seconds)

    async def read(self, key: str) -> CooldownState:
        """See `CooldownStore.read`."""
        state = self._states.get(key, _State())
        now = self._clock.monotonic()
        match self._find_phase(state):
            case "cooling":
                return CooldownState("cooling", state.failures, (state.ends_at or now) - now)
            case "ramping":
                ends_at = (state.ramp_at or now) + self._policy.ramp_seconds
                return CooldownState("ramping", state.failures, ends_at - now)
            case phase:
                return CooldownState(phase, state.failures, 0.0)

    async def aclose(self) -> None:
        """Nothing is on its way."""

    def _admit(self, key: str, state: _State, lease_seconds: float) -> Admission:
        now = self._clock.monotonic()
        match self._find_phase(state):
            case "cooling":
                return Admission(key, "refused", retry_after_seconds=(state.ends_at or now) - now)
            case "half_open":
                return self._admit_probe(key, state, now, lease_seconds)
            case "ramping":
                return self._admit_to_ramp(key, state, now, lease_seconds)
            case "open":
                return Admission(key, "open")

    def _admit_probe(self, key: str, state: _State, now: float, lease_seconds: float) -> Admission:
        if state.probe and now < state.probe_ends_at:
            wait = min(state.probe_ends_at - now, self._policy.first_seconds)
            return Admission(key, "refused", retry_after_seconds=wait)
        state.probe, state.probe_ends_at = str(next(self._tokens)), now + lease_seconds
        return Admission(key, "probe", state.probe)

    def _admit_to_ramp(self, key: str, state: _State, now: float, lease_seconds: float) -> Admission:
        state.places = {token: ends_at for token, ends_at in state.places.items() if ends_at > now}
        step_seconds = self._policy.ramp_seconds / RAMP_DOUBLINGS
        since = now - (state.ramp_at or now)
        step = int(since / step_seconds)
        if len(state.places) >= 2**step:
            return Admission(key, "refused", retry_after_seconds=(step + 1) * step_seconds - since)
        token = str(next(self._tokens))
        state.places[token] = now + lease_seconds
        return Admission(key, "ramp", token)

    def _begin_ramp(self, key: str, state: _State) -> None:
        if not self._policy.ramp_seconds:
            del self._states[key]
            return
        state.failures, state.ends_at = 0, None
        state.ramp_at = self._clock.monotonic()

    def _choose_seconds(self, state: _State, phase: Phase, is_probe: bool, cool_seconds: float | None) -> float | None:
        """None: it goes on as it was."""
        longest = self._policy.longest_seconds
        if is_probe:
            state.length_seconds = min(2 * state.length_seconds, longest)
            return max(state.length_seconds, cool_seconds or 0.0)
        if cool_seconds is not None:
            state.length_seconds = max(state.length_seconds, self._policy.first_seconds)
            return cool_seconds
        if phase in ("cooling", "half_open") or state.failures < self._policy.failures:
            return None
        state.length_seconds = max(self._policy.first_seconds, min(2 * state.length_seconds, longest))
        return state.length_seconds

    def _find_phase(self, state: _State) -> Phase:
        """And forgets what a ramp that is over had to remember."""
        now = self._clock.monotonic()
        if state.ramp_at is not None:
            if now - state.ramp_at < self._policy.ramp_seconds:
                return "ramping"
            state.ramp_at, state.length_seconds = None, 0.0
            state.places.clear()
        if state.ends_at is None:
            return "open"
        return "cooling" if now < state.ends_at else "half_open"
