"""A line's number is part of its job's id."""

from uuid import UUID

import pytest

from orchestrator.batches.ids import (
    MOST_LINES,
    build_batch_id,
    build_job_id,
    build_message_id,
    find_last_id,
    parse_batch_id,
    read_line,
)
from shared.errors import InputError


def test_the_jobs_of_a_batch_lie_side_by_side_in_the_order_of_its_lines() -> None:
    one, other = sorted((build_batch_id(), build_batch_id()))
    ids = [build_job_id(batch, line) for batch in (one, other) for line in (1, 2, 65_536, MOST_LINES)]
    assert ids == sorted(ids)
    assert [read_line(job_id) for job_id in ids] == [1, 2, 65_536, MOST_LINES] * 2
    assert one < ids[0] < find_last_id(one) < other


def test_they_are_ordinary_uuids_of_version_7() -> None:
    job_id = build_job_id(build_batch_id(), 7)
    assert (job_id.version, job_id.variant) == (7, UUID(int=0x8000 << 48).variant)


def test_batches_of_the_same_moment_differ() -> None:
    assert len({build_batch_id() for _ in range(1000)}) == 1000


def test_messages_sort_like_their_lines() -> None:
    batch_id = build_batch_id()
    assert build_message_id(batch_id, 9) < build_message_id(batch_id, 10) < build_message_id(batch_id, 1_000_000)


def test_what_is_no_id() -> None:
    with pytest.raises(InputError, match="batch: 'x' is no id; use one that"):
        parse_batch_id("x")
