"""The tables, one file per owner. `metadata` is what the migrations are compared with."""

from shared.models.agents import Agent, Tenant
from shared.models.base import Base
from shared.models.batches import Batch
from shared.models.failed_requests import Drain, FailedCall, FailedRequest, RejectedMessage
from shared.models.jobs import AttemptRow, Job, Lease, MessageRow, Result, Run, Sweep, WaitingTask
from shared.models.workers import Worker

metadata = Base.metadata

__all__ = [
    "Agent",
    "AttemptRow",
    "Batch",
    "Drain",
    "FailedCall",
    "FailedRequest",
    "Job",
    "Lease",
    "MessageRow",
    "RejectedMessage",
    "Result",
    "Run",
    "Sweep",
    "Tenant",
    "WaitingTask",
    "Worker",
    "metadata",
]
