"""A pool tells others how it stands about once a second, the last change included, and no call waits for it."""

import asyncio
from collections.abc import Sequence

from structlog.testing import capture_logs

from llm_pool.pool_status import Answering, DeploymentQuota, PoolStatus
from llm_pool.status.metrics import Metrics
from llm_pool.status.quota import QuotaTracker
from llm_pool.status.status_board import StatusBoard
from llm_pool.stores.statuses.base import StatusStoreUnavailableError
from llm_pool.stores.statuses.memory import MemoryStatuses
from shared.attempts import QuotaReading
from tests.fakes.scripted_provider import deploy

A, B = deploy("a"), deploy("b")
SHORT_SECONDS = 0.05


class Listener(MemoryStatuses):
    """Remembers each word; the first takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.is_hearing = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.heard: list[tuple[list[str], list[str]]] = []
        self.is_away = False

    async def publish(self, quotas: Sequence[DeploymentQuota], answering: Sequence[Answering]) -> None:
        self.heard.append(([quota.deployment for quota in quotas], [each.model_group for each in answering]))
        if self.is_away:
            raise StatusStoreUnavailableError from ConnectionError("nobody there")
        self.is_hearing.set()
        await self.may_go_on.wait()
        await super().publish(quotas, answering)


def tell(board: StatusBoard, tracker: QuotaTracker, remaining: int) -> None:
    tracker.update(A, [QuotaReading("requests", "minute", 100, remaining, 60.0)])
    board.note_answer("fast", A)


def left(status: PoolStatus) -> int | None:
    return status.quotas[0].quotas[0].remaining


async def test_a_hundred_changes_are_told_in_one_go_the_last_included() -> None:
    tracker, store = QuotaTracker(), Listener()
    board = StatusBoard(tracker, store=store, interval_seconds=SHORT_SECONDS)
    for remaining in range(100, 0, -1):
        tell(board, tracker, remaining)
    assert store.heard == []
    await asyncio.sleep(4 * SHORT_SECONDS)
    assert store.heard == [(["a"], ["fast"])]
    assert left(await store.read()) == 1


async def test_later_changes_are_told_later_and_only_what_changed() -> None:
    tracker, store = QuotaTracker(), Listener()
    board = StatusBoard(tracker, store=store, interval_seconds=SHORT_SECONDS)
    tell(board, tracker, 9)
    await asyncio.sleep(2 * SHORT_SECONDS)
    tracker.increment_local_count(B, None)
    board.note_answer("quality", B)
    await asyncio.sleep(2 * SHORT_SECONDS)
    assert store.heard == [(["a"], ["fast"]), (["b"], ["quality"])]


async def test_closing_tells_what_is_not_told_yet() -> None:
    tracker, store = QuotaTracker(), Listener()
    board = StatusBoard(tracker, store=store)
    tell(board, tracker, 7)
    await board.aclose()
    assert left(await store.read()) == 7


async def test_a_change_while_it_is_telling_is_told_after() -> None:
    tracker, store = QuotaTracker(), Listener()
    board = StatusBoard(tracker, store=store, interval_seconds=0.01)
    store.may_go_on.clear()
    tell(board, tracker, 99)
    await store.is_hearing.wait()
    tell(board, tracker, 98)
    store.may_go_on.set()
    await asyncio.sleep(0.05)
    assert left(await store.read()) == 98
    await board.aclose()


async def test_closing_while_it_is_telling_tells_it_again() -> None:
    tracker, store = QuotaTracker(), Listener()
    board = StatusBoard(tracker, store=store, interval_seconds=0.01)
    store.may_go_on.clear()
    tell(board, tracker, 99)
    await store.is_hearing.wait()
    asyncio.get_running_loop().call_later(0.05, store.may_go_on.set)
    await board.aclose()
    assert left(await store.read()) == 99


async def test_a_store_that_is_away_is_told_of_once_and_disturbs_nobody() -> None:
    tracker, store = QuotaTracker(), Listener()
    board = StatusBoard(tracker, store=store, interval_seconds=0.01)
    store.is_away = True
    with capture_logs() as logs:
        for remaining in (99, 98, 97):
            tell(board, tracker, remaining)
            await asyncio.sleep(0.03)
    assert [log["event"] for log in logs] == ["status_not_told"]
    store.is_away = False
    tell(board, tracker, 96)
    await asyncio.sleep(0.03)
    assert left(await store.read()) == 96
    await board.aclose()


async def test_quotas_are_shown_to_prometheus_too() -> None:
    tracker, metrics = QuotaTracker(), Metrics()
    board = StatusBoard(tracker, meter=metrics, interval_seconds=0.01)
    tell(board, tracker, 42)
    await asyncio.sleep(0.03)
    labels = {"deployment": "a", "kind": "requests_per_minute"}
    assert metrics.registry.get_sample_value("llm_quota_remaining", labels) == 42


async def test_with_nobody_to_tell_nothing_runs_beside_the_calls() -> None:
    tracker = QuotaTracker()
    board = StatusBoard(tracker)
    running = len(asyncio.all_tasks())
    tell(board, tracker, 3)
    assert len(asyncio.all_tasks()) == running
    assert left(board.get_status()) == 3
    await board.aclose()


def test_it_goes_on_telling_in_a_second_event_loop() -> None:
    tracker, store = QuotaTracker(), Listener()
    board = StatusBoard(tracker, store=store, interval_seconds=0.01)

    async def tell_and_leave(remaining: int, stay_seconds: float) -> None:
        tell(board, tracker, remaining)
        await asyncio.sleep(stay_seconds)

    asyncio.run(tell_and_leave(9, 0.0))
    asyncio.run(tell_and_leave(8, 0.05))
    assert left(asyncio.run(store.read())) == 8
