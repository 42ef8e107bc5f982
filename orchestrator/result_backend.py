"""Celery's Redis backend, telling the results of tasks that end at about the same time in one round trip.

Celery asks for two round trips a result, and waits for them on the thread the task is on. Here a task that is a
greenlet of the event loop stands aside until its group was told, by a thread of its own.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from celery import states
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError
from sqlalchemy.util.concurrency import in_greenlet

from orchestrator import event_loop
from orchestrator.grouping import Grouping

# For some 2.5 s in all, as the settings say of results that are told one by one.
_TRIES: Final = {"max_retries": 8, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.5}


@dataclass(frozen=True, slots=True)
class News:
    """A task's state, as pollers are to read it."""

    task_id: str
    key: str
    value: str


class ResultBackend(RedisBackend):  # type: ignore[misc] # Celery publishes no types
    """What is stored, and how pollers hear of it, is Celery's own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._news: Grouping[News, None] = Grouping(self._tell)

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **options: Any
    ) -> Any:
        """
        Raises:
            BackendStoreError: Redis did not take it, for as long as it was tried.
        """
        if not in_greenlet():
            return super().store_result(task_id, result, state, traceback=traceback, request=request, **options)
        encoded = self.encode_result(result, state)
        meta = self._get_result_meta(result=encoded, state=state, traceback=traceback, request=request)
        value = self.encode({**meta, "task_id": task_id})
        event_loop.run(self._news.put(News(task_id, self.get_key_for_task(task_id), value)))
        return encoded

    async def _tell(self, news: Sequence[News]) -> list[None]:
        await asyncio.to_thread(self._store_all, news)
        return [None] * len(news)

    def _store_all(self, news: Sequence[News]) -> None:
        try:
            self.ensure(self._store, (news,), **_TRIES)
        except self.connection_errors as error:
            raise BackendStoreError(str(error), task_id=news[0].task_id) from error

    def _store(self, news: Sequence[News]) -> None:
        known = self.client.mget([each.key for each in news])
        with self.client.pipeline(transaction=False) as pipe:
            for each, stored in zip(news, known, strict=True):
                # A task that was delivered twice has told its success: nothing that comes later undoes it.
                if stored is None or self.decode(stored)["status"] != states.SUCCESS:
                    pipe.set(each.key, each.value, ex=self.expires)
                    pipe.publish(each.key, each.value)
            pipe.execute()
