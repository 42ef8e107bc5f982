"""The queues as RabbitMQ keeps them: of the quorum kind where they are new, and as they are where they are not.

A foreign producer with Celery's defaults may have been first, and then its queue is a classic one. RabbitMQ lets nobody
declare it anew as another kind, and Celery ends a worker that tries. Such a queue serves as well, on one node.
"""

from typing import Any

import structlog
from amqp.exceptions import PreconditionFailed
from kombu.entity import Queue

log = structlog.get_logger()


class QuorumQueue(Queue):
    """A queue that is kept by a majority of RabbitMQ's nodes, unless it was there before and is not."""

    def __init__(self, name: str = "", **options: Any) -> None:
        super().__init__(name, **{"queue_arguments": {"x-queue-type": "quorum"}, "routing_key": name, **options})

    def queue_declare(self, nowait: bool = False, passive: bool = False, channel: Any = None) -> Any:
        """On a channel of its own: a refusal closes it, and the worker's would come back without its limits."""
        with (channel or self.channel).connection.channel() as own:
            try:
                return super().queue_declare(nowait=nowait, passive=passive, channel=own)
            except PreconditionFailed as error:
                log.warning("queue_is_not_quorum", queue=self.name, error=error.reply_text, remedy=_REMEDY)
                return super().queue_declare(passive=True, channel=own)


_REMEDY = "it works, but lives on one node: to change that, drain it, delete it, and let a worker declare it"
