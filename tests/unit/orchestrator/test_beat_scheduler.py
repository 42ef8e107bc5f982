"""Beat goes on sending when its clock is set back."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from orchestrator.beat_scheduler import SteadyScheduler


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[SteadyScheduler]:
    app = Celery("clocks", broker="memory://")
    app.conf.result_expires = None  # else Celery adds an entry of its own
    app.conf.beat_schedule = {"often": {"task": "one", "schedule": 1.0}, "seldom": {"task": "two", "schedule": 5.0}}
    scheduler = SteadyScheduler(app=app, schedule_filename=str(tmp_path / "schedule"))
    yield scheduler
    scheduler.close()


def put_off(scheduler: Any, seconds: float) -> None:
    """The order of what is to be sent, as the clock had it that was this far ahead."""
    scheduler._heap = [event._replace(time=event.time + seconds) for event in scheduler._heap]


def read_moments(scheduler: Any) -> list[float]:
    return [event.time for event in scheduler._heap]


def test_what_last_ran_in_the_future_is_due_after_its_interval(scheduler: SteadyScheduler) -> None:
    scheduler.tick()
    for entry in scheduler.schedule.values():
        entry.last_run_at += timedelta(minutes=10)
    assert scheduler.tick() <= 1.0
    assert all(entry.last_run_at <= entry.default_now() for entry in scheduler.schedule.values())


def test_the_order_of_the_old_clock_is_forgotten(scheduler: SteadyScheduler) -> None:
    """An entry that is due in ten minutes by it would be passed over for as long by those that are due before."""
    scheduler.tick()
    for entry in scheduler.schedule.values():
        entry.last_run_at += timedelta(minutes=10)
    put_off(scheduler, seconds=600)
    scheduler.tick()
    scheduler.schedule["often"].last_run_at -= timedelta(seconds=2)
    scheduler.tick()
    spread = read_moments(scheduler)
    assert max(spread) - min(spread) <= 5.0


def test_a_clock_that_is_right_changes_nothing(scheduler: SteadyScheduler) -> None:
    scheduler.tick()
    moments = read_moments(scheduler)
    scheduler.tick()
    assert read_moments(scheduler) == moments
