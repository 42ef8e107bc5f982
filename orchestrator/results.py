"""What the poller gets, in each state; pure. The same dict stands in the job row, the API and Celery's backend."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from llm_pool.dialects.openai_answers import write_call
from llm_pool.types import CompletionResponse, ToolCall
from orchestrator.jobs.crashes import CrashedRun
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import Claim, JobRecord
from orchestrator.jobs.sweeps import Expired
from orchestrator.outcomes import POLITE_REPLY
from shared.errors import InputError, LLMError


def build_answer(claim: Claim, response: CompletionResponse) -> dict[str, Any]:
    """The answer, who gave it, and what it took."""
    usage = response.usage
    return {
        **_identity(claim, JobState.SUCCEEDED),
        "content": response.content,
        **_describe_calls(response.tool_calls),
        "model": response.model,
        "provider": response.provider,
        "deployment": response.deployment,
        "finish_reason": response.finish_reason,
        "usage": usage and {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
        "latency_seconds": round(response.latency_seconds, 3),
        "cost_usd": None if response.cost_usd is None else float(response.cost_usd),
        "attempts": len(response.attempts),
    }


def build_failure(claim: Claim, error: InputError | LLMError) -> dict[str, Any]:
    """A polite reply for the user, and the reason for whoever looks after the product."""
    return {**_identity(claim, JobState.FAILED), "content": POLITE_REPLY, "error": _describe(error)}


def build_parked(claim: Claim, failed_request_id: UUID) -> dict[str, Any]:
    """A polite reply for the user, and where the job waits for its answer."""
    return {
        **_identity(claim, JobState.PARKED),
        "content": POLITE_REPLY,
        "failed_request_id": str(failed_request_id),
    }


def build_quarantine(job: Expired, runs: Sequence[CrashedRun]) -> dict[str, Any]:
    """The job is not given to another worker; its runs are the evidence."""
    told = "; ".join(f"run {run.number} {run.last_words}" for run in runs)
    message = f"{job.crash_count} runs ended without an outcome: {told}"
    return {
        "job_id": str(job.job_id),
        "tenant_id": job.tenant_id,
        "state": job.state.value,
        "content": POLITE_REPLY,
        "error": {
            "type": "Quarantined",
            "message": message,
            "runs": [{"run": run.number, "last_words": run.last_words} for run in runs],
        },
    }


def build_cancellation(job: JobRecord) -> dict[str, Any]:
    """The job has no answer and will have none, because somebody asked for that."""
    return {
        "job_id": str(job.job_id),
        "message_id": job.message_id,
        "tenant_id": job.tenant_id,
        "state": JobState.CANCELLED.value,
        "content": POLITE_REPLY,
        "error": {"type": "Cancelled", "message": f"cancelled while it was {job.state.value}"},
    }


def build_view(job: JobRecord) -> dict[str, Any]:
    """A job at this moment: its result when it is final, else where it stands."""
    view: dict[str, Any] = {
        "job_id": str(job.job_id),
        "message_id": job.message_id,
        "tenant_id": job.tenant_id,
        "task_id": job.task_id,
        "state": job.state.value,
        "created_at": job.created_at.isoformat(),
        "finished_at": job.finished_at and job.finished_at.isoformat(),
    }
    if job.failed_request_id:
        view["failed_request_id"] = str(job.failed_request_id)
    if job.state is JobState.PARKED:
        view |= {"content": POLITE_REPLY, "next_try_at": job.next_try_at and job.next_try_at.isoformat()}
    return view | (job.result or {})


def _describe_calls(calls: Sequence[ToolCall]) -> dict[str, Any]:
    """As OpenAI writes them, since that is what reads them."""
    return {"tool_calls": [write_call(call) for call in calls]} if calls else {}


def _identity(claim: Claim, state: JobState) -> dict[str, Any]:
    return {
        "job_id": str(claim.job_id),
        "message_id": claim.message.id,
        "tenant_id": claim.tenant_id,
        "state": state.value,
    }


def _describe(error: InputError | LLMError) -> dict[str, str]:
    description = {"type": type(error).__name__, "message": str(error)}
    return description | (error.as_dict() if isinstance(error, InputError) else {})
