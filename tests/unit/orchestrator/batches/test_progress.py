"""Rate and time left."""

import pytest

from orchestrator.batches.progress import WINDOW_SECONDS, Pace, reckon_seconds_left


def test_the_rate_is_that_of_the_last_while() -> None:
    pace = Pace()
    assert pace.note(0.0, 0) is None
    assert pace.note(2.0, 10) == pytest.approx(5)
    assert pace.note(WINDOW_SECONDS, 150) == pytest.approx(5)
    assert pace.note(2 * WINDOW_SECONDS, 150) == 0, "what was before it is forgotten"


def test_what_is_there_at_the_start_is_no_rate() -> None:
    pace = Pace()
    pace.note(10.0, 5000)
    assert pace.note(11.0, 5010) == pytest.approx(10)


@pytest.mark.parametrize(
    ("total", "rate", "left"), [(None, 5.0, None), (100, None, None), (100, 0.0, None), (100, 5.0, 10.0)]
)
def test_time_left(total: int | None, rate: float | None, left: float | None) -> None:
    assert reckon_seconds_left(total, 50, rate) == left
