"""Row 7: every provider is away for minutes: one says 503, one says nothing, one refuses connections.

Three model groups, each with a provider and a quota of its own, go down together and come back together; the messages
are more than a minute's quota. The record of each server tells how often it was probed meanwhile, and that after its
return one call went alone, that the calls grew no faster than their answers, and that no minute had more than the
quota. A provider that refuses connections sees no probe: those are counted by the ledger's attempts.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.calls import Call
from benchmarks.chaos.checker import check
from benchmarks.chaos.model import Model
from benchmarks.chaos.parts import Program, wait_until
from benchmarks.chaos.yard import Yard, YardSettings, build_ids

QUOTA: Final = 100
MESSAGES: Final = 110
PROBE_SECONDS: Final = 5.0
MINUTE_SECONDS: Final = 60.0
UNDER_WAY_SECONDS: Final = 2.0
"""Calls let out a minute apart may arrive so much closer together where a busy machine held up the first of them."""
DEPLOYMENT: Final = """
  - name: {name}
    provider: openai_compatible
    model: chaos-model
    base_url: "{url}"
    api_key: none
    timeout_seconds: 2
    limits: {{{{requests_per_minute: {quota}}}}}
    price: {{{{prompt_usd_per_million: 1, completion_usd_per_million: 2}}}}"""
PARKED: Final = "select count(*) from jobs where state = 'parked'"
ATTEMPTS: Final = """
select count(*) from attempts join messages using (job_id)
where message_id like $1 and started_at between to_timestamp($2) and to_timestamp($3)
"""


@dataclass(frozen=True, slots=True)
class Outage:
    """One way to be away."""

    name: str
    begin: Callable[[Model], None]
    end: Callable[[Model], None]


def answer(model: Model) -> None:
    model.behave("", Behaviour(delay_seconds=0.1))


OUTAGES: Final = (
    Outage("unavailable", lambda model: model.behave("", Behaviour(status=503)), answer),
    Outage("silent", lambda model: model.behave("", Behaviour(hold=True)), answer),
    Outage("refusing", lambda model: model.listen(is_wanted=False), lambda model: model.listen(is_wanted=True)),
)


def run(bench: Bench) -> Finding:
    seconds = bench.choose(20, 600)
    with ExitStack() as ending:
        models = {outage.name: start_model(outage.name, ending) for outage in OUTAGES}
        settings = YardSettings(lease_seconds=10, catalog=build_catalog(models))
        yard = ending.enter_context(bench.open_yard(settings))
        for outage in OUTAGES:
            outage.begin(models[outage.name])
        send_all(yard)
        began_at = time.time()
        time.sleep(seconds)
        ended_at = time.time()
        for outage in OUTAGES:
            outage.end(models[outage.name])
        is_done = yard.wait_until_done(180)
        recovery_seconds = time.time() - ended_at
        probes = {name: count_probes(yard, name, models[name], began_at, ended_at) for name in models}
        calls = {name: model.log.calls() for name, model in models.items()}
        after = {name: [call for call in of_one if call.arrived_at > ended_at] for name, of_one in calls.items()}
        wrong = [*find_spent(yard), *find_impatient(probes, seconds), *find_steep(after)]
        evidence = yard.gather()
        everything = [call for of_one in calls.values() for call in of_one]
        verdict = check(replace(evidence, calls=everything))
    figures = ", ".join(f"{name} {count}" for name, count in probes.items())
    notes = f"{seconds} s, {len(OUTAGES) * MESSAGES} messages; probes meanwhile: {figures}"
    recovery = recovery_seconds if is_done else None
    return Finding(verdict, notes, tuple(wrong), tuple(find_crowded(after)), recovery)


def start_model(name: str, ending: ExitStack) -> Model:
    model = Model(Path(ending.enter_context(TemporaryDirectory(prefix="llmyard-chaos-"))))
    child = model.start()
    ending.callback(Program(child).end)
    wait_until(child.is_ready, 30, f"model server {name} is ready")
    return model


def build_catalog(models: Mapping[str, Model]) -> str:
    """One deployment and one group for each; to be `str.format`ted again by the yard, which adds nothing."""
    deployments = "".join(DEPLOYMENT.format(name=name, url=model.url, quota=QUOTA) for name, model in models.items())
    groups = "".join(f"\n  {name}: {{{{deployments: [{name}], retries: 0}}}}" for name in (*models, "quality"))
    groups = groups.replace("[quality]", f"[{next(iter(models))}]")
    return f"deployments:{deployments}\ngroups:{groups}\ncache: {{{{store: none}}}}\n"


def send_all(yard: Yard) -> None:
    for name in ("one", "two"):
        yard.start_worker(name)
    yard.start_beat()
    for outage in OUTAGES:
        yard.send(build_ids(outage.name, MESSAGES), model=outage.name)
    wait_until(lambda: yard.count(PARKED) == len(OUTAGES) * MESSAGES, 90, "every message is parked")


def count_probes(yard: Yard, name: str, model: Model, began_at: float, ended_at: float) -> int:
    if name == "refusing":
        return yard.count(ATTEMPTS, f"{name}%", began_at, ended_at)
    return sum(began_at <= call.arrived_at <= ended_at for call in model.log.calls())


def find_spent(yard: Yard) -> Iterator[str]:
    if yard.count("select count(*) from jobs where crash_count > 0 or state = 'failed'"):
        yield "an attempt was spent or a job failed"


def find_impatient(probes: Mapping[str, int], seconds: float) -> Iterator[str]:
    # One that begins as the window does, and one that ends with it.
    most = seconds / PROBE_SECONDS + 2
    return (f"{name} was probed {count} times" for name, count in probes.items() if count > most)


def find_steep(after: Mapping[str, Sequence[Call]]) -> Iterator[str]:
    """Of each provider's calls after the outage, in the order of arrival: what lateness does not explain."""
    for name, calls in after.items():
        yield from (f"{name}: {fault}" for fault in find_faults_of_ramp(calls))
        if (most := find_most_within(calls, MINUTE_SECONDS - UNDER_WAY_SECONDS)) > QUOTA:
            yield f"{name}: {most} calls in less than a minute"


def find_crowded(after: Mapping[str, Sequence[Call]]) -> Iterator[str]:
    most = {name: find_most_within(calls, MINUTE_SECONDS) for name, calls in after.items()}
    return (f"{name}: {count} calls within a minute" for name, count in most.items() if count > QUOTA)


def find_faults_of_ramp(calls: Sequence[Call]) -> Iterator[str]:
    """That calls come late makes a ramp less steep, never steeper."""
    answered = sorted(call.ended_at for call in calls if call.ended_at is not None)
    for number, call in enumerate(calls):
        before = sum(ended_at <= call.arrived_at for ended_at in answered)
        if number + 1 > 2 * before + 1:
            yield f"call {number + 1} came after {before} answers"
            return


def find_most_within(calls: Sequence[Call], seconds: float) -> int:
    moments = [call.arrived_at for call in calls]
    return max((sum(start <= moment < start + seconds for moment in moments) for start in moments), default=0)


ROW = Row(7, "an outage of every provider: 503, silence, refused connections", run)
