"""The tables, one file per owner. `metadata` is what the migrations are compared with."""

from shared.models.agents import Agent, Tenant
from shared.models.base import Base
from shared.models.failed_requests import FailedRequest, RejectedMessage
from shared.models.jobs import AttemptRow, Job, MessageRow, Result, Run, WaitingTask

metadata = Base.metadata

__all__ = [
    "Agent",
    "AttemptRow",
    "FailedRequest",
    "Job",
    "MessageRow",
    "RejectedMessage",
    "Result",
    "Run",
    "Tenant",
    "WaitingTask",
    "metadata",
]
