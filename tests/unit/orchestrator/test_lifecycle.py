"""The states of a job and the ways between them."""

import re

import pytest

from orchestrator.jobs import lifecycle
from orchestrator.jobs.lifecycle import MAX_CRASHES, NEXT_STATES, JobState, state_after_crash
from shared.models.jobs import JOB_STATES

FINAL = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DISCARDED, JobState.QUARANTINED}


def test_the_table_knows_the_same_states() -> None:
    assert set(JOB_STATES) == {state.value for state in JobState} == {state.value for state in NEXT_STATES}


@pytest.mark.parametrize("state", JobState)
def test_a_final_state_leads_nowhere_and_the_others_lead_on(state: JobState) -> None:
    assert state.is_final == (state in FINAL) == (not NEXT_STATES[state])


@pytest.mark.parametrize("state", set(JobState) - FINAL)
def test_every_open_state_can_reach_an_end(state: JobState) -> None:
    reached, found = set(), {state}
    while reached != found:
        reached |= found
        found |= {following for known in reached for following in NEXT_STATES[known]}
    assert JobState.SUCCEEDED in reached


def test_only_a_queued_job_starts_to_run() -> None:
    assert [state for state in JobState if JobState.RUNNING in NEXT_STATES[state]] == [JobState.QUEUED]


def test_the_drawing_names_every_state() -> None:
    assert set(re.findall(r"[a-z]+", lifecycle.__doc__ or "")) >= {state.value for state in JobState}


def test_the_fifth_crash_is_the_last() -> None:
    states = [state_after_crash(count) for count in range(1, 7)]
    assert states == [*[JobState.QUEUED] * 4, *[JobState.QUARANTINED] * 2]
    assert MAX_CRASHES == 5
