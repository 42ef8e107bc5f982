"""The workers that live."""

from sqlalchemy import false
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, MomentNow


class Worker(Base):
    """A worker process: how many jobs it can hold, and when it was last seen to work."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    """Machine and process, as leases and runs have it."""
    node: Mapped[str]
    """What Celery and Flower call it. A process that starts under it replaces the one before."""
    concurrency: Mapped[int]
    """Jobs it can hold; 0 where it only serves other queues than theirs."""
    started_at: Mapped[MomentNow]
    seen_at: Mapped[MomentNow]
    """By the database's clock, at each of its heartbeats."""
    polled_at: Mapped[MomentNow]
    """When it had last got a job, asked the broker for one, or had no room for one."""
    is_stopping: Mapped[bool] = mapped_column(server_default=false())
    """It takes nothing new."""
