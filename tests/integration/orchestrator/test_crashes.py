"""A suspect that died, from the runner to the ledger and to those who wait: counted at once, and with last words."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from llm_pool.asking.asking import DEFAULT_GROUP
from llm_pool.types import CompletionRequest, CompletionResponse
from orchestrator.agents.runner import Runner
from orchestrator.group_commit import GroupCommit
from orchestrator.isolation.suspect import FOREIGN_SUSPECT_AFTER, SUSPECT_AFTER, Suspect, SuspectDiedError
from orchestrator.jobs import crashes
from orchestrator.jobs.crashes import CrashedRun
from orchestrator.jobs.deliveries import KnownJob
from orchestrator.jobs.leases import LeaseKeeper
from orchestrator.jobs.lifecycle import MAX_CRASHES, JobState
from orchestrator.jobs.store import Claim
from orchestrator.outcomes import Crashed, Failed, HandledElsewhere, RetryLater, Succeeded
from orchestrator.reconcile import reconcile
from orchestrator.recorder import Recorder
from orchestrator.workload import Workload
from shared.database import Database
from shared.errors import LLMUnavailableError, RunCrashedError
from tests.builders import build_message, build_response
from tests.fakes.scripted_pool import ScriptedPool
from tests.ledger import ANSWERED, Jobs, count

CRASHED = f"update jobs set crash_count = {SUSPECT_AFTER}"
ONE_MORE_IS_TOO_MANY = f"update jobs set crash_count = {MAX_CRASHES - 1}"
RUN_OUT = "update leases set lease_until = now() - interval '1 second'"
DEATH = "was ended by SIGSEGV"
MODEL = DEFAULT_GROUP
"""What the job's agent asks for."""

Step = str | BaseException


class ScriptedSuspects:
    """Asks nobody: answers, or raises, what a test tells it."""

    def __init__(self, step: Step = "alone") -> None:
        self.step = step
        self.asked: list[Suspect] = []
        self.distrusted: frozenset[str] = frozenset()
        self.released = asyncio.Event()
        self.released.set()

    async def complete(self, suspect: Suspect, request: CompletionRequest) -> CompletionResponse:
        self.asked.append(suspect)
        await self.released.wait()
        if isinstance(self.step, BaseException):
            raise self.step
        return build_response(self.step)

    def distrusts(self, model: str) -> bool:
        return model in self.distrusted


MakeRunner = Callable[..., Runner]


def open_ledger(database: Database) -> GroupCommit:
    return GroupCommit(database, worker="w-1", lease_seconds=30)


@pytest.fixture
def make_runner(database: Database) -> MakeRunner:
    def make(suspects: ScriptedSuspects, pool: ScriptedPool | None = None) -> Runner:
        leases, ledger = LeaseKeeper(database, lease_seconds=30), open_ledger(database)
        return Runner(
            database,
            pool or ScriptedPool(),
            leases,
            Recorder(database, ledger),
            ledger=ledger,
            suspects=suspects,
            workload=Workload(8),
        )

    return make


@pytest.fixture
async def job(jobs: Jobs) -> KnownJob:
    job_id = await jobs.add(build_message())
    assert job_id
    return KnownJob("default", job_id, "task-1")


async def record(database: Database, claim: Claim, last_words: str = DEATH) -> object:
    return await Recorder(database, open_ledger(database)).record(claim, Crashed(last_words))


@pytest.mark.parametrize(("crash_count", "content"), [(SUSPECT_AFTER - 1, "fine"), (SUSPECT_AFTER, "alone")])
async def test_a_job_is_run_alone_once_it_is_a_suspect(
    make_runner: MakeRunner, job: KnownJob, superuser: asyncpg.Connection, crash_count: int, content: str
) -> None:
    await superuser.execute("update jobs set crash_count = $1", crash_count)
    outcome = await make_runner(ScriptedSuspects()).handle(job)
    assert isinstance(outcome, Succeeded)
    assert outcome.result["content"] == content


@pytest.mark.parametrize(
    ("crash_count", "is_distrusted", "content"),
    [(FOREIGN_SUSPECT_AFTER - 1, False, "fine"), (FOREIGN_SUSPECT_AFTER, False, "alone"), (0, True, "alone")],
)
async def test_what_runs_foreign_code_is_run_alone_sooner(
    make_runner: MakeRunner,
    job: KnownJob,
    superuser: asyncpg.Connection,
    crash_count: int,
    is_distrusted: bool,
    content: str,
) -> None:
    await superuser.execute("update jobs set crash_count = $1", crash_count)
    pool, suspects = ScriptedPool(), ScriptedSuspects()
    pool.foreign_models = frozenset({MODEL})
    suspects.distrusted = frozenset({MODEL}) if is_distrusted else frozenset()
    outcome = await make_runner(suspects, pool).handle(job)
    assert isinstance(outcome, Succeeded)
    assert outcome.result["content"] == content


async def test_what_runs_no_foreign_code_is_not_distrusted(make_runner: MakeRunner, job: KnownJob) -> None:
    suspects = ScriptedSuspects()
    suspects.distrusted = frozenset({MODEL})
    outcome = await make_runner(suspects).handle(job)
    assert isinstance(outcome, Succeeded)
    assert outcome.result["content"] == "fine"


async def test_a_suspect_that_dies_is_queued_again_at_once(
    make_runner: MakeRunner, job: KnownJob, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(CRASHED)
    suspects = ScriptedSuspects(SuspectDiedError(DEATH))
    outcome = await make_runner(suspects).handle(job)
    assert isinstance(outcome, RetryLater)
    assert outcome.job
    assert (outcome.job.job_id, outcome.job.task_id) == (job.job_id, "task-1")
    assert suspects.asked == [Suspect(job.job_id, SUSPECT_AFTER)]
    assert (await jobs.find(job.job_id)).state is JobState.QUEUED
    assert await superuser.fetchval("select crash_count from jobs") == SUSPECT_AFTER + 1
    assert await count(superuser, "leases") == 0
    run = await superuser.fetchrow("select outcome, error_message, ended_at from runs")
    assert tuple(run)[:2] == ("crashed", DEATH)
    assert run["ended_at"]


async def test_the_fifth_death_quarantines_and_tells_everybody_why(
    make_runner: MakeRunner, job: KnownJob, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(ONE_MORE_IS_TOO_MANY)
    await jobs.wait_for(job.job_id, "task-2")
    await superuser.execute(
        """insert into failed_requests (id, tenant_id, job_id, state, parks, next_try_at, error_type, error_message)
        select id, tenant_id, id, 'replaying', 1, now(), 'T', 'm' from jobs"""
    )
    outcome = await make_runner(ScriptedSuspects(SuspectDiedError(DEATH))).handle(job)
    assert isinstance(outcome, Failed)
    assert outcome.error_type == "Quarantined"
    assert DEATH in outcome.error_message
    assert set(outcome.waiting_tasks) == {"task-1", "task-2"}
    found = await jobs.find(job.job_id)
    assert (found.state, found.result) == (JobState.QUARANTINED, outcome.result)
    assert found.finished_at
    assert await superuser.fetchval("select state from failed_requests") == "discarded"
    assert await jobs.claim(job.job_id) is None


async def test_what_a_suspects_pool_raises_counts_no_crash(
    make_runner: MakeRunner, job: KnownJob, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(CRASHED)
    await make_runner(ScriptedSuspects(LLMUnavailableError())).handle(job)
    assert (await jobs.find(job.job_id)).state is JobState.PARKED
    assert await superuser.fetchval("select crash_count from jobs") == SUSPECT_AFTER


async def test_a_suspect_is_handed_back_like_any_other(
    make_runner: MakeRunner, job: KnownJob, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(CRASHED)
    suspects = ScriptedSuspects()
    suspects.released.clear()
    runner = make_runner(suspects)
    running = asyncio.create_task(runner.handle(job))
    async with asyncio.timeout(5):
        while not suspects.asked:  # noqa: ASYNC110 - the fake is asked from within the runner
            await asyncio.sleep(0.01)
    assert runner.hand_back_all() == 1
    assert isinstance(await running, RetryLater)
    assert (await jobs.find(job.job_id)).state is JobState.QUEUED
    assert await superuser.fetchval("select crash_count from jobs") == SUSPECT_AFTER


async def test_a_crash_of_a_run_that_was_overtaken_changes_nothing(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    overtaken = await jobs.start()
    await superuser.execute(RUN_OUT)
    await reconcile(database, lease_seconds=0.0, backlog=0)
    second = await jobs.claim(overtaken.job_id)
    assert second
    assert isinstance(await record(database, overtaken), HandledElsewhere)
    assert await superuser.fetchval("select crash_count from jobs") == 1
    assert await count(superuser, "leases") == 1
    assert await jobs.record(second, ANSWERED)


async def test_a_crash_that_is_recorded_twice_counts_once(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    claim = await jobs.start()
    await record(database, claim)
    assert isinstance(await record(database, claim), HandledElsewhere)
    assert await superuser.fetchval("select crash_count from jobs") == 1


async def test_a_crash_after_the_answer_changes_nothing(database: Database, jobs: Jobs) -> None:
    claim = await jobs.start()
    await jobs.record(claim, ANSWERED)
    joined = await record(database, claim)
    assert isinstance(joined, Succeeded)
    assert (await jobs.find(claim.job_id)).state is JobState.SUCCEEDED


async def test_the_evidence_names_every_run_that_ended_without_an_outcome(
    make_runner: MakeRunner, database: Database, job: KnownJob, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    await jobs.claim(job.job_id)
    await superuser.execute(RUN_OUT)
    await reconcile(database, lease_seconds=0.0, backlog=0)
    await make_runner(ScriptedSuspects(), ScriptedPool(LLMUnavailableError())).handle(job)  # parked: no crash
    await superuser.execute("update jobs set state = 'queued'")
    surprised = make_runner(ScriptedSuspects(), ScriptedPool(ValueError("no \x00 such thing")))
    with pytest.raises(RunCrashedError):
        await surprised.handle(job)
    await superuser.execute(RUN_OUT)
    await reconcile(database, lease_seconds=0.0, backlog=0)
    await make_runner(ScriptedSuspects(SuspectDiedError(DEATH))).handle(job)
    async with database.as_system() as connection:
        evidence = await crashes.find_crashed_runs(connection, job.job_id)
    assert evidence == (
        CrashedRun(1, "was not heard of again"),
        CrashedRun(3, "ValueError: no � such thing"),
        CrashedRun(4, DEATH),
    )


async def test_last_words_without_end_are_cut(database: Database, jobs: Jobs, superuser: asyncpg.Connection) -> None:
    await record(database, await jobs.start(), "x" * 10_000)
    assert await superuser.fetchval("select length(error_message) from runs") == 500
