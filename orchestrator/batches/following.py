"""Writes a batch's answers down as they come, and tells how it gets on, until all are there.

Whoever stops following loses nothing: the batch goes on in the fleet, and the file is gone on with another time.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from orchestrator.batches import answers, store
from orchestrator.batches.output_files import PartialOutput
from orchestrator.batches.output_lines import write_line
from orchestrator.batches.progress import Pace, Progress, reckon_seconds_left
from orchestrator.batches.records import Answer, Batch
from orchestrator.jobs.lifecycle import JobState
from shared.database import Database, patiently

LINES_AT_ONCE: Final = 1000
FIRST_LOOK_SECONDS: Final = 0.05
LONGEST_LOOK_SECONDS: Final = 1.0
COUNT_SECONDS: Final = 2.0
"""Lines behind one that is not finished are counted so often at most,"""
COUNT_SHARE: Final = 20
"""and so rarely that it takes a twentieth of the time."""


class Follower:
    """Follows one batch to its end."""

    def __init__(
        self, database: Database, batch: Batch, output: PartialOutput, show: Callable[[Progress], None]
    ) -> None:
        self._database = database
        self._batch = batch
        self._output = output
        self._show = show
        self._pace = Pace()
        self._behind = 0
        self._count_at = 0.0
        self._failed = self._tokens = 0
        self._cost_usd = Decimal(0)

    async def follow(self) -> Progress:
        """Returns once every line is in the file; the file is then in its place."""
        await patiently(self._sum_up_written)
        look_seconds = FIRST_LOOK_SECONDS
        while True:
            family = await patiently(self._find_family)
            written = await self._write_some(family)
            progress = await self._tell(family)
            if progress.written == progress.total:
                self._output.finish()
                return progress
            look_seconds = _decide_look_seconds(written, look_seconds)
            await asyncio.sleep(look_seconds)

    async def _find_family(self) -> tuple[Batch, ...]:
        async with self._database.as_tenant(self._batch.tenant_id) as connection:
            return await store.find_family(connection, self._batch)

    async def _write_some(self, family: Sequence[Batch]) -> int:
        page = await patiently(lambda: self._read(family))
        self._output.write(write_line(self._batch.shape, answer) for answer in page)
        for answer in page:
            self._add_up(answer)
        return len(page)

    async def _read(self, family: Sequence[Batch]) -> list[Answer]:
        async with self._database.as_tenant(self._batch.tenant_id) as connection:
            return await answers.read_answers(connection, family, self._output.lines, LINES_AT_ONCE)

    def _add_up(self, answer: Answer) -> None:
        body = answer.body
        self._failed += body["state"] != JobState.SUCCEEDED
        if usage := body.get("usage"):
            self._tokens += usage["prompt_tokens"] + usage["completion_tokens"]
        if cost_usd := body.get("cost_usd"):
            self._cost_usd += Decimal(str(cost_usd))

    async def _sum_up_written(self) -> None:
        """Of what a client before this one has written. Whatever a retry answered was counted as failed before."""
        async with self._database.as_tenant(self._batch.tenant_id) as connection:
            family = await store.find_family(connection, self._batch)
            sums = [await store.read_totals(connection, each, through=self._output.lines) for each in family]
        succeeded = sum(each.states.get(JobState.SUCCEEDED, 0) for each in sums)
        self._failed = self._output.lines - succeeded
        self._tokens = sum(each.prompt_tokens + each.completion_tokens for each in sums)
        self._cost_usd = sum((each.cost_usd for each in sums), Decimal(0))

    async def _tell(self, family: Sequence[Batch]) -> Progress:
        root, now = family[0], time.monotonic()
        if now >= self._count_at:
            self._behind = self._output.lines + await patiently(lambda: self._count_behind(family[-1]))
            self._count_at = now + max(COUNT_SECONDS, COUNT_SHARE * (time.monotonic() - now))
        finished = max(self._output.lines, min(self._behind, root.imported_lines))
        rate = self._pace.note(now, finished)
        progress = Progress(
            finished=finished,
            written=self._output.lines,
            total=root.total_lines,
            imported=root.imported_lines,
            failed=self._failed,
            tokens=self._tokens,
            cost_usd=self._cost_usd,
            lines_per_second=rate,
            seconds_left=reckon_seconds_left(root.total_lines, finished, rate),
        )
        self._show(progress)
        return progress

    async def _count_behind(self, newest: Batch) -> int:
        async with self._database.as_tenant(newest.tenant_id) as connection:
            return await answers.count_behind(connection, newest.id, self._output.lines)


def _decide_look_seconds(written: int, before: float) -> float:
    """A full page is followed by the next at once; where nothing comes it is looked for ever less often."""
    if written == LINES_AT_ONCE:
        return 0.0
    if written:
        return FIRST_LOOK_SECONDS * 4
    return min(max(before, FIRST_LOOK_SECONDS) * 1.5, LONGEST_LOOK_SECONDS)
