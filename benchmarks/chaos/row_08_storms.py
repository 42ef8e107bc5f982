"""Row 8: storms of 429, in each form in which providers say when to come back; hardly a call is wasted.

Each form has a deployment of its own, so that none is spared by what another has said, and each of them its part of one
steady stream over two workers. In the midst of it the model server refuses every call of one form, and says when to ask
again; then of the next. A call that is refused is wasted. That under way when a storm begins cannot be helped, nor that
of the moment until the other worker has heard of it; a client that goes by each refusal alone wastes as many as it has.

A form that is not understood shows on any machine, however few its calls. Where no quota is told the deployment is left
alone for 5 s, as after any failure, and asked while the storm lasts; where one is told to be used up, but not until
when, it is left alone for a minute.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

import redis

from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.calls import Call
from benchmarks.chaos.yard import CATALOG, Yard, YardSettings

RATE: Final = 80.0
"""Messages a second, of all forms together."""
MESSAGES: Final = 320
"""Of one form in a round: of so many, three wasted calls are less than a hundredth."""
FIRST_STORM_SECONDS: Final = 3.0
"""From the stream's beginning."""
APART_SECONDS: Final = 3.0
"""From the beginning of one storm to that of the next form's; their ends fall into the stream."""
STORM_SECONDS: Final = 7.0
NAMED_SECONDS: Final = 8.0
"""What the refusals say: a second longer, as the storm may end late on a busy machine."""
HEARD_SECONDS: Final = 3.0
"""After its first refusal whoever asks a deployment again has not understood it."""
LATE_SECONDS: Final = 20.0
"""Far more than a sweep, a drain and a busy machine take to come back, far less than the minute of a quota."""
MOST_WAITING: Final = 20
"""Messages on the queue; the stream is as thick as the machine allows."""
MOST_WASTED: Final = 0.01
WELL: Final = Behaviour(delay_seconds=0.1)
DEPLOYMENT: Final = """  - {{{{name: {name}, provider: openai_compatible, model: chaos-model,
     base_url: "{{url}}", api_key: none,
     price: {{{{prompt_usd_per_million: {{prompt_price}}, completion_usd_per_million: {{completion_price}}}}}}}}}}
"""
GEMINI: Final[Mapping[str, object]] = {
    "code": 429,
    "message": "quota exceeded",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{NAMED_SECONDS}s"},
    ],
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One way to say that the quota is used up until `NAMED_SECONDS` from now."""

    name: str
    """Also of the form's deployment and group, and what its message ids begin with."""
    headers: Mapping[str, str]
    error: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Storm:
    """One form, from when on it is refused."""

    form: str
    began_at: float


def build_refusals() -> list[Refusal]:
    """With moments counted from now, so made when the storm begins."""
    until = datetime.now(UTC) + timedelta(seconds=NAMED_SECONDS)
    whole = until.replace(microsecond=0) + timedelta(seconds=1)
    return [
        Refusal("seconds", {"Retry-After": f"{NAMED_SECONDS:.0f}"}, {}),
        Refusal("float", {"Retry-After": str(NAMED_SECONDS)}, {}),
        Refusal("http-date", {"Retry-After": format_datetime(whole, usegmt=True)}, {}),
        Refusal("milliseconds", {"retry-after-ms": f"{NAMED_SECONDS * 1000:.0f}"}, {}),
        Refusal("go-duration", build_used_up(f"0m{NAMED_SECONDS}s"), {}),
        Refusal("rfc-3339", build_used_up(whole.isoformat()), {}),
        Refusal("epoch", build_used_up(f"{whole.timestamp():.0f}"), {}),
        Refusal("gemini-body", {}, GEMINI),
    ]


def build_used_up(reset: str) -> Mapping[str, str]:
    return {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}


FORMS: Final = tuple(refusal.name for refusal in build_refusals())


def run(bench: Bench) -> Finding:
    rounds = bench.choose(1, 5)
    with bench.open_yard(YardSettings(lease_seconds=10, catalog=build_catalog())) as yard:
        for name in ("one", "two"):
            yard.start_worker(name)
        yard.start_beat()
        yard.model.behave("", WELL)
        storms = [storm for number in range(rounds) for storm in Stream(yard, number).send_all()]
        yard.wait_until_done(60)
        verdict = yard.check()
        calls = {form: yard.model.log.calls(f"{form}-") for form in FORMS}
    figures = ", ".join(f"{form} {count_wasted(calls[form])} of {len(calls[form])}" for form in FORMS)
    notes = f"{rounds} storms of each form; wasted calls: {figures}"
    wrong = [fault for storm in storms for fault in find_misunderstood(storm, calls[storm.form])]
    return Finding(verdict, notes, wrong=tuple(wrong), missed=tuple(find_wasteful(calls)))


def build_catalog() -> str:
    """The yard's own, with a deployment and a group for each form."""
    deployments = "".join(DEPLOYMENT.format(name=form) for form in FORMS)
    groups = "".join(f"  {form}: {{{{deployments: [{form}], retries: 0}}}}\n" for form in FORMS)
    return CATALOG.replace("groups:\n", f"{deployments}groups:\n{groups}")


class Stream:
    """Messages of all forms in turn, and in their midst a storm for each form after the other."""

    def __init__(self, yard: Yard, number: int) -> None:
        """`number` is the round's."""
        self._yard = yard
        self._number = number
        self._storms: list[Storm] = []
        self._ended = 0

    def send_all(self) -> list[Storm]:
        started_at = time.monotonic()
        with redis.Redis.from_url(self._yard.redis_url) as client:
            for position in range(MESSAGES * len(FORMS)):
                self._begin_and_end(position / RATE)
                time.sleep(max(0.0, started_at + position / RATE - time.monotonic()))
                # Messages that have to wait would come when their form's storm is over.
                while client.llen("celery") > MOST_WAITING:
                    self._begin_and_end(position / RATE)
                    time.sleep(0.1)
                form = FORMS[position % len(FORMS)]
                self._yard.send([f"{form}-r{self._number}-{position:05d}"], model=form)
        self._end(len(FORMS))
        return self._storms

    def _begin_and_end(self, stream_seconds: float) -> None:
        storms = self._storms
        if len(storms) < len(FORMS) and stream_seconds >= FIRST_STORM_SECONDS + len(storms) * APART_SECONDS:
            storms.append(begin_storm(self._yard, len(storms)))
        if self._ended < len(storms) and time.time() >= storms[self._ended].began_at + STORM_SECONDS:
            self._end(self._ended + 1)

    def _end(self, number: int) -> None:
        for storm in self._storms[self._ended : number]:
            self._yard.model.behave(f"{storm.form}-", WELL)
        self._ended = number


def begin_storm(yard: Yard, form: int) -> Storm:
    refusal = build_refusals()[form]
    storm = Storm(refusal.name, time.time())
    yard.model.behave(f"{storm.form}-", Behaviour(status=429, headers=refusal.headers, error=refusal.error))
    return storm


def count_wasted(calls: Sequence[Call]) -> int:
    return sum(call.ending == "refused" for call in calls)


def find_misunderstood(storm: Storm, calls: Sequence[Call]) -> Iterator[str]:
    """From the calls of its form: whether they met it, and came again when they were told to."""
    named_at = storm.began_at + NAMED_SECONDS
    met = [call.arrived_at for call in calls if call.ending == "refused" and storm.began_at <= call.arrived_at]
    if not met or min(met) > named_at:
        yield f"{storm.form}: no call met the storm"
        return
    again = [call.arrived_at for call in calls if call.arrived_at > min(met) + HEARD_SECONDS]
    if early := sum(moment < named_at for moment in again):
        yield f"{storm.form}: asked {early} times before the moment that was named"
    elif not again or min(again) > named_at + LATE_SECONDS:
        yield f"{storm.form}: not asked again within {LATE_SECONDS:.0f} s of the moment that was named"


def find_wasteful(calls: Mapping[str, Sequence[Call]]) -> Iterator[str]:
    for form, of_form in calls.items():
        if count_wasted(of_form) >= MOST_WASTED * len(of_form):
            yield f"{form}: a hundredth of the calls or more were wasted"


ROW = Row(8, "storms of 429, in each form of Retry-After", run)
