"""Attempt ring, between RateLimit and Ledger: what a provider says of our quotas is taken down for people to see.

That our own view of what is left follows it, is RateLimit's affair.
"""

from llm_pool.call import AttemptCall, AttemptHandler
from llm_pool.status.quota import QuotaTracker
from llm_pool.status.status_board import StatusBoard
from llm_pool.types import Answer
from shared.errors import LLMError


class Quota:
    """Where a provider says nothing, its answers are counted instead."""

    def __init__(self, tracker: QuotaTracker, board: StatusBoard) -> None:
        self._tracker = tracker
        self._board = board

    async def __call__(self, call: AttemptCall, proceed: AttemptHandler) -> Answer:
        try:
            answer = await proceed(call)
        except LLMError as error:
            if error.quota:
                self._tracker.update(call.deployment, error.quota)
                self._board.note_quota(call.deployment)
            raise
        if answer.quota:
            self._tracker.update(call.deployment, answer.quota)
        else:
            self._tracker.increment_local_count(call.deployment, answer.usage)
        self._board.note_answer(call.call.request.model, call.deployment)
        return answer
