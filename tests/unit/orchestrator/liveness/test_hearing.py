"""What counts as work, and when a worker is deaf."""

import pytest

from orchestrator.liveness.deafness import Ear, Look
from orchestrator.liveness.pulse import STANDS_SECONDS, Pulse
from tests.fakes.moving_clock import MovingClock

SILENT = 60.0
QUEUES = ("celery", "maintenance")


class Worker:
    """A pulse on a clock of the test's own, with room or without."""

    def __init__(self) -> None:
        self.clock = MovingClock()
        self.is_full = False
        self.pulse = Pulse(QUEUES, is_full=lambda: self.is_full, clock=self.clock.monotonic)

    def quiet_after(self, seconds: float) -> float:
        """Its loop goes round meanwhile."""
        self.clock.seconds += seconds
        self.pulse.note_turn()
        return self.pulse.read().quiet_seconds


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_asking_for_all_of_its_queues_is_work(worker: Worker) -> None:
    assert worker.quiet_after(10) == 10
    worker.pulse.note_poll(["maintenance", "celery"])
    assert worker.quiet_after(5) == 5


def test_asking_for_the_sweeps_only_is_none(worker: Worker) -> None:
    worker.clock.seconds += 10
    worker.pulse.note_poll(["maintenance"])
    assert worker.quiet_after(0) == 10


def test_having_no_room_is_work_up_to_the_moment_there_is_some(worker: Worker) -> None:
    worker.is_full = True
    assert worker.quiet_after(3600) == 0
    worker.is_full = False
    assert worker.quiet_after(7) == 7


def test_who_stands_still_has_no_room_and_does_no_work(worker: Worker) -> None:
    worker.is_full = True
    worker.clock.seconds += STANDS_SECONDS
    assert worker.pulse.read().quiet_seconds == STANDS_SECONDS
    assert not worker.pulse.has_turned_within(STANDS_SECONDS)
    worker.pulse.note_turn()
    assert worker.pulse.has_turned_within(STANDS_SECONDS)
    assert worker.pulse.read().quiet_seconds == 0


def test_an_unanswered_poll_is_a_sign_only_where_polls_are_seen(worker: Worker) -> None:
    assert not worker.pulse.read().sees_polls
    worker.pulse.note_poll(QUEUES)
    assert worker.pulse.read().sees_polls


def test_a_beat_is_no_work(worker: Worker) -> None:
    worker.clock.seconds += 10
    worker.pulse.note_beat()
    signs = worker.pulse.read()
    assert (signs.quiet_seconds, signs.unseen_seconds) == (10, 0)


def hear(*looks: Look, started_at: float = -1000.0) -> Ear:
    ear = Ear(started_at)
    for look in looks:
        ear = ear.after(look)
    return ear


def nothing(at: float) -> Look:
    return Look(at, has_heard=False, broker_answers=True)


def test_who_hears_nothing_of_a_broker_that_answers_is_deaf_in_the_end() -> None:
    ear = hear(nothing(0), nothing(30), nothing(59))
    assert not ear.is_deaf(59, SILENT)
    assert ear.is_deaf(60, SILENT)


@pytest.mark.parametrize(
    "between",
    [Look(30, has_heard=True, broker_answers=True), Look(30, has_heard=False, broker_answers=False)],
    ids=["heard something", "nobody could hear"],
)
def test_the_count_begins_anew(between: Look) -> None:
    ear = hear(nothing(0), between, nothing(59))
    assert not ear.is_deaf(60, SILENT)
    assert ear.is_deaf(59 + SILENT, SILENT)


def test_one_that_began_anew_a_moment_ago_does_not_again() -> None:
    ear = hear(nothing(0), started_at=0.0)
    assert not ear.is_deaf(179, SILENT)
    assert ear.is_deaf(180, SILENT)
