"""Takes a file's lines into the ledger, some at a time, each lot in one transaction with the count of what is in.

A client that is killed goes on behind the last lot; two at once take turns, and whoever comes too late reads on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from orchestrator.batches import store
from orchestrator.batches.input_files import Record
from orchestrator.batches.lines import LineMaker, describe_fault
from orchestrator.batches.records import Batch, BatchState, NewLine, RejectedLine
from shared.database import Database, patiently
from shared.errors import InputError

LINES_AT_ONCE: Final = 2000
CHARACTERS_AT_ONCE: Final = 4_000_000
"""Of long lines fewer are in memory at a time."""


@dataclass(slots=True)
class _Lot:
    """Lines that go in together."""

    lines: list[NewLine] = field(default_factory=list)
    rejected: list[RejectedLine] = field(default_factory=list)
    characters: int = 0

    def add(self, made: NewLine | RejectedLine) -> None:
        self.characters += len(made.body)
        match made:
            case NewLine():
                self.lines.append(made)
            case RejectedLine():
                self.rejected.append(made)

    @property
    def is_full(self) -> bool:
        return len(self) >= LINES_AT_ONCE or self.characters >= CHARACTERS_AT_ONCE

    def __len__(self) -> int:
        return len(self.lines) + len(self.rejected)


async def import_lines(database: Database, batch: Batch, maker: LineMaker, records: Iterable[Record]) -> None:
    """Take in what is not in yet, to the end of the input; nothing happens to a batch that was cancelled meanwhile."""
    before = batch.imported_lines
    for lot in _split(maker, islice(records, before, None), before):
        current = await patiently(partial(_take_in, database, batch, before, lot))
        if current.state is not BatchState.IMPORTING:
            return
        before += len(lot)
    await patiently(partial(_end, database, batch, before))


def check_all(noun: str, maker: LineMaker, records: Iterable[Record]) -> None:
    """Read the whole input and make nothing of it.

    Raises:
        InputError: the first line that cannot be asked, with its place.
    """
    for record in records:
        try:
            maker.read(record)
        except InputError as fault:
            raise describe_fault(noun, record, fault) from None


def _split(maker: LineMaker, records: Iterable[Record], before: int) -> Iterator[_Lot]:
    lot = _Lot()
    for line, record in enumerate(records, start=before + 1):
        lot.add(maker.make(line, record))
        if lot.is_full:
            yield lot
            lot = _Lot()
    if lot:
        yield lot


async def _take_in(database: Database, batch: Batch, before: int, lot: _Lot) -> Batch:
    """How the batch stands after it. What another client has taken in already is left as it is."""
    async with database.as_tenant(batch.tenant_id) as connection:
        through = before + len(lot)
        await store.take_in(connection, batch, before=before, through=through, lines=lot.lines, rejected=lot.rejected)
        return await store.get(connection, batch.id)


async def _end(database: Database, batch: Batch, lines: int) -> None:
    async with database.as_tenant(batch.tenant_id) as connection:
        await store.end_import(connection, batch, lines)
