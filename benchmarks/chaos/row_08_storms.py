"""Row 8: storms of 429, in each form in which providers say when to come back; hardly a call is wasted.

Each storm falls on a steady stream of messages over two workers: for a second and a half the model server refuses
every call and says when to ask again. A call that is refused is wasted. Those under way when a storm begins cannot be
helped, nor those of the moment until the other worker has heard of it; a client that goes by each refusal alone wastes
as many calls as it has messages. A storm comes every ten
seconds, six times as often as a quota by the minute can be used up.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.yard import Yard, YardSettings, build_ids

RATE: Final = 40.0
PERIOD_SECONDS: Final = 10.0
STORM_SECONDS: Final = 1.5
MOST_WASTED: Final = 0.01


@dataclass(frozen=True, slots=True)
class Refusal:
    """One way to say that the quota is used up until `STORM_SECONDS` from now."""

    name: str
    headers: Mapping[str, str]
    error: Mapping[str, object]


def build_refusals() -> list[Refusal]:
    """With moments counted from now, so made when the storm begins."""
    until = datetime.now(UTC) + timedelta(seconds=STORM_SECONDS)
    whole = until.replace(microsecond=0) + timedelta(seconds=1)
    used_up = {"x-ratelimit-remaining-requests": "0"}
    return [
        Refusal("seconds", {"Retry-After": "2"}, {}),
        Refusal("float", {"Retry-After": str(STORM_SECONDS)}, {}),
        Refusal("HTTP date", {"Retry-After": format_datetime(whole, usegmt=True)}, {}),
        Refusal("milliseconds", {"retry-after-ms": str(int(STORM_SECONDS * 1000))}, {}),
        Refusal("Go duration", {**used_up, "x-ratelimit-reset-requests": f"{STORM_SECONDS}s"}, {}),
        Refusal("RFC 3339", {**used_up, "x-ratelimit-reset-requests": whole.isoformat()}, {}),
        Refusal("epoch", {**used_up, "x-ratelimit-reset": str(int(whole.timestamp()))}, {}),
        Refusal("Gemini's body", {}, GEMINI),
    ]


GEMINI: Final[Mapping[str, object]] = {
    "code": 429,
    "message": "quota exceeded",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{STORM_SECONDS}s"},
    ],
}


def run(bench: Bench) -> Finding:
    storms = bench.choose(1, 5)
    names = [refusal.name for refusal in build_refusals()]
    with bench.open_yard(YardSettings(lease_seconds=10)) as yard:
        for name in ("one", "two"):
            yard.start_worker(name)
        yard.start_beat()
        wasted = {name: sum(storm(yard, names.index(name), number) for number in range(storms)) for name in names}
        yard.wait_until_done(60)
        verdict = yard.check()
    share = sum(wasted.values()) / verdict.calls
    figures = ", ".join(f"{name} {count}" for name, count in wasted.items())
    notes = f"{storms} storms of each form; wasted {share:.2%} of {verdict.calls} calls: {figures}"
    return Finding(verdict, notes, () if share < MOST_WASTED else ("a hundredth of the calls or more were wasted",))


def storm(yard: Yard, form: int, number: int) -> int:
    """Some seconds of calls, with a storm in their midst; returns how many calls it met."""
    before = yard.model.log.count(ending="refused")
    ids = build_ids(f"f{form}n{number}-", int(RATE * PERIOD_SECONDS))
    yard.model.behave("", Behaviour(delay_seconds=0.1))
    stream = threading.Thread(target=send_steadily, args=(yard, ids))
    stream.start()
    time.sleep(1)
    refusal = build_refusals()[form]
    yard.model.behave("", Behaviour(status=429, headers=refusal.headers, error=refusal.error))
    time.sleep(STORM_SECONDS)
    yard.model.behave("", Behaviour(delay_seconds=0.1))
    stream.join()
    return yard.model.log.count(ending="refused") - before


def send_steadily(yard: Yard, ids: list[str]) -> None:
    started_at = time.monotonic()
    for number, message_id in enumerate(ids):
        time.sleep(max(0.0, started_at + number / RATE - time.monotonic()))
        with suppress(OSError):
            yard.send([message_id])


ROW = Row(8, "storms of 429, in each form of Retry-After", run)
