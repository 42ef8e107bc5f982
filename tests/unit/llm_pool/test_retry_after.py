"""Every form in which providers say when to come back."""

from datetime import UTC, datetime

import pytest

from llm_pool.providers.retry_after import parse_wait, read_retry_after

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
EPOCH = 1_767_268_800  # NOW


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("0.25", 0.25),
        (" 3 ", 3.0),
        ("1e2", 100.0),
        ("-3", 0.0),
        ("0", 0.0),
        ("86400", 86_400.0),
        (str(EPOCH + 90), 90.0),
        (f"{EPOCH + 90}.5", 90.5),
        (str((EPOCH + 90) * 1000 + 250), 90.25),
        (str(EPOCH - 90), 0.0),
        ("6m0s", 360.0),
        ("8.64s", 8.64),
        ("6ms", 0.006),
        ("1h2m3.5s", 3723.5),
        ("250µs", 0.00025),
        ("1d", 86_400.0),
        ("27.4s", 27.4),
        ("2026-01-01T12:00:30Z", 30.0),
        ("2026-01-01T12:00:30.250+00:00", 30.25),
        ("2026-01-01T14:00:30+02:00", 30.0),
        ("2026-01-01T12:00:30", 30.0),
        ("2026-01-01T11:00:00Z", 0.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 12:00:30 -0000", 30.0),
        ("Thursday, 01-Jan-26 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
    ],
)
def test_what_can_be_understood(text: str, seconds: float) -> None:
    assert parse_wait(text, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " ",
        "soon",
        "nan",
        "inf",
        "-inf",
        "9" * 400,
        "1e300",
        "500000000",  # 16 years, or 1985
        "99999999999999999",
        "6x",
        "1m2",
        "1.2.3s",
        "m",
        "2027-06-01T12:00:00Z",
        "Fri, 01 Jan 2100 12:00:00 GMT",
        "Thu, 01 Jan 2026 12:00:30 +99999999",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-13-01T00:00:00Z",
        "Thu, 01 Jan 99999999999999999999 12:00:30 GMT",
        "\x00",
        "9" * 20 + "h",
    ],
)
def test_what_says_nothing(text: str | None) -> None:
    assert parse_wait(text, NOW) in (None, 0.0)


@pytest.mark.parametrize("text", ["soon", "nan", "inf", "1e300", "500000000", "6x", "2027-06-01T12:00:00Z"])
def test_nonsense_is_no_wait_at_all(text: str) -> None:
    assert parse_wait(text, NOW) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "?", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "-5"}, 0.0),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT", "date": "no date"}, 30.0),
    ],
)
def test_which_header_counts(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers, NOW) == seconds


@pytest.mark.parametrize("theirs", ["11:55:00 GMT", "12:05:00 GMT", "12:05:00 -0000"])
def test_a_date_is_counted_by_the_clock_of_whoever_set_it(theirs: str) -> None:
    """Ours may be minutes ahead or behind: the answer's own date says by how much."""
    due = theirs.replace(":00 ", ":30 ")
    headers = {"date": f"Thu, 01 Jan 2026 {theirs}", "retry-after": f"Thu, 01 Jan 2026 {due}"}
    assert read_retry_after(headers, NOW) == 30.0
    assert read_retry_after({**headers, "retry-after": "7"}, NOW) == 7.0


@pytest.mark.parametrize("date", ["Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359", "\x00"])
def test_an_impossible_date_of_an_answer_does_no_harm(date: str) -> None:
    assert read_retry_after({"date": date, "retry-after": "2026-01-01T12:00:30Z"}, NOW) in (None, 0.0, 30.0)
