"""What the command line does with batches: finds or makes the one of an input, and sees it through to its output."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final, Protocol, TypeVar
from uuid import UUID

import structlog
from pydantic_core import to_json

from llm_pool.catalog import Catalog
from orchestrator import dispatch
from orchestrator.agents.catalog import get_agent
from orchestrator.batches import cancelling, importing, retrying, store
from orchestrator.batches.feeding import feed
from orchestrator.batches.following import Follower
from orchestrator.batches.ids import build_batch_id
from orchestrator.batches.input_files import InputFile, Record, compute_digest, open_input
from orchestrator.batches.lines import LineMaker, describe_fault, find_shape
from orchestrator.batches.output_files import PartialOutput
from orchestrator.batches.progress import Progress
from orchestrator.batches.purses import build_purse
from orchestrator.batches.records import Batch, BatchOptions, BatchState, NewBatch, Shape, Slice, Totals
from orchestrator.batches.retrying import Retry
from orchestrator.celery_app import BULK_QUEUE
from shared.database import DATABASE_ERRORS, Database
from shared.database import describe_fault as describe_database_fault
from shared.errors import InputError

log = structlog.get_logger()

OneT = TypeVar("OneT")
OtherT = TypeVar("OtherT")

FEED_SECONDS: Final = 1.0


class SliceQueue(Protocol):
    """Where slices wait for a worker."""

    def read_backlog(self) -> int | None:
        """How many; None if it cannot be asked."""

    def send(self, slices: Sequence[Slice]) -> None:
        """Nothing is raised over a queue that is away: what does not arrive is fed again."""


class BrokerSlices:
    """The broker's queue for bulk work."""

    def read_backlog(self) -> int | None:
        return dispatch.read_backlog(queue=BULK_QUEUE)

    def send(self, slices: Sequence[Slice]) -> None:
        dispatch.dispatch_slices([(each.tenant_id, each.job_ids) for each in slices])


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants asked."""

    path: Path
    tenant_id: str
    options: BatchOptions
    limit_usd: Decimal | None = None
    is_strict: bool = False
    """Nothing is asked where a single line cannot be."""
    is_anew: bool = False
    """The same input was perhaps asked before; ask it once more."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A batch with the input that it is made from."""

    batch: Batch
    input: InputFile
    maker: LineMaker
    was_there: bool
    """It had been made before."""


@dataclass(frozen=True, slots=True)
class Overview:
    """One batch, as `show` tells of it."""

    batch: Batch
    totals: Totals
    reasons: Sequence[tuple[str, int, str]]
    """Why lines have no answer: the kind of error, how many lines, an example."""


class BatchDesk:
    """Every command on batches."""

    def __init__(self, database: Database, models: Catalog, queue: SliceQueue) -> None:
        self._database = database
        self._models = models
        self._queue = queue
        self._is_feeding = asyncio.Lock()

    async def open(self, order: Order) -> Opened:
        """Find the batch of this file and these options, or make it.

        Raises:
            InputError: the file or an option cannot be used, or its first line; nothing was made.
        """
        source = open_input(order.path)
        self._check_options(order.options)
        first = _read_first(source)
        shape = find_shape(first)
        maker = await self._build_maker(order, source, shape)
        _try_first(maker, first)
        if order.is_strict:
            await asyncio.to_thread(importing.check_all, source.noun, maker, source.read(source.path))
        digest = await asyncio.to_thread(compute_digest, order.path)
        new = NewBatch(
            tenant_id=order.tenant_id,
            name=order.path.name,
            fingerprint=_build_fingerprint(digest, order.options),
            shape=shape,
            options=order.options,
            limit_usd=order.limit_usd,
        )
        async with self._database.as_tenant(order.tenant_id) as connection:
            found = await store.find_same(connection, new.fingerprint)
            batch = await store.add(connection, new, anew=order.is_anew)
        purse = build_purse(batch.id, batch.limit_usd)
        was_there = found is not None and found.id == batch.id
        return Opened(batch, source, replace(maker, batch_id=batch.id, purse=purse), was_there)

    async def run(self, opened: Opened, output: Path | None, show: Callable[[Progress], None]) -> Progress | None:
        """Take in what is not in yet, feed the workers, and write the answers down; without an output only take in."""
        async with self._feeding():
            if output is None:
                await self._import(opened)
                return None
            _, progress = await _together(self._import(opened), self.follow(opened.batch, output, show))
            return progress

    async def resume(self, batch: Batch, output: Path, show: Callable[[Progress], None]) -> Progress:
        """Write the answers of a batch down, whose input is not at hand."""
        async with self._feeding():
            return await self.follow(batch, output, show)

    async def follow(self, batch: Batch, output: Path, show: Callable[[Progress], None]) -> Progress:
        async with self._database.as_tenant(batch.tenant_id) as connection:
            root, *retries = await store.find_family(connection, batch)
        with PartialOutput(output, (retries[-1] if retries else root).id) as partial_output:
            return await Follower(self._database, root, partial_output, show).follow()

    async def get(self, tenant_id: str, batch_id: UUID) -> Batch:
        """
        Raises:
            NotFoundError: the tenant has no such batch.
        """
        async with self._database.as_tenant(tenant_id) as connection:
            return await store.get(connection, batch_id)

    async def list_newest(self, tenant_id: str, limit: int) -> list[Batch]:
        async with self._database.as_tenant(tenant_id) as connection:
            return await store.list_newest(connection, limit)

    async def show(self, tenant_id: str, batch_id: UUID) -> list[Overview]:
        """The batch, and those that asked lines of it again.

        Raises:
            NotFoundError: the tenant has no such batch.
        """
        async with self._database.as_tenant(tenant_id) as connection:
            family = await store.find_family(connection, await store.get(connection, batch_id))
            return [
                Overview(batch, await store.read_totals(connection, batch), await store.read_reasons(connection, batch))
                for batch in family
            ]

    async def cancel(self, batch: Batch) -> Batch:
        return await cancelling.cancel(self._database, batch)

    async def retry_failed(self, batch: Batch, limit_usd: Decimal | None) -> Retry | None:
        retry = await retrying.retry_failed(self._database, batch, limit_usd)
        if retry is not None:
            await self._feed()
        return retry

    def _check_options(self, options: BatchOptions) -> None:
        if options.column is not None and options.template is not None:
            raise InputError("template", "stands beside a column", "give --column or --template, not both")
        if options.model is not None:
            self._models.get_group(options.model)

    async def _build_maker(self, order: Order, source: InputFile, shape: Shape) -> LineMaker:
        async with self._database.as_tenant(order.tenant_id) as connection:
            agent = await get_agent(connection, order.tenant_id, None)
        return LineMaker(
            batch_id=build_batch_id(),
            tenant_id=order.tenant_id,
            shape=shape,
            options=order.options,
            noun=source.noun,
            default_model=agent.model_preference,
            check_model=self._models.get_group,
            timestamp=datetime.now(UTC).isoformat(),
        )

    async def _import(self, opened: Opened) -> None:
        if opened.batch.state is BatchState.IMPORTING:
            records = opened.input.read(opened.input.path)
            await importing.import_lines(self._database, opened.batch, opened.maker, records)
        await self._feed()

    @asynccontextmanager
    async def _feeding(self) -> AsyncIterator[None]:
        """A batch begins at once, goes on where no beat is running, and is seen to have ended."""
        feeding = asyncio.create_task(self._keep_feeding())
        try:
            yield
            await self._feed()
        finally:
            feeding.cancel()
            with suppress(asyncio.CancelledError):
                await feeding

    async def _keep_feeding(self) -> None:
        while True:
            try:
                await self._feed()
            except DATABASE_ERRORS as error:
                log.warning("batches_not_fed", error=describe_database_fault(error))
            await asyncio.sleep(FEED_SECONDS)

    async def _feed(self) -> None:
        # One at a time: Celery reads its configuration at first use, and not safely from two threads.
        async with self._is_feeding:
            backlog = await asyncio.to_thread(self._queue.read_backlog)
            slices = await feed(self._database, backlog)
            if slices:
                await asyncio.to_thread(self._queue.send, slices)


async def _together(one: Awaitable[OneT], other: Awaitable[OtherT]) -> tuple[OneT, OtherT]:
    """Both; where one of them fails, the other is stopped."""
    tasks = asyncio.ensure_future(one), asyncio.ensure_future(other)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _build_fingerprint(digest: str, options: BatchOptions) -> str:
    """What decides what is asked, and nothing else."""
    return hashlib.sha256(digest.encode() + to_json(asdict(options))).hexdigest()


def _read_first(source: InputFile) -> Record:
    for record in source.read(source.path):
        return record
    raise InputError("input", f"{source.path.name!r} holds no {source.noun}", "put something to ask into it")


def _try_first(maker: LineMaker, first: Record) -> None:
    """Where not even the first line can be asked, it is the wrong file or the wrong options rather than a bad line."""
    try:
        maker.read(first)
    except InputError as fault:
        raise describe_fault(maker.noun, first, fault) from None
