"""Everything a batch meets, in one process: a desk, a queue in memory, and a worker that takes what is on it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_pool.catalogs.catalog_file import DEFAULT_CATALOG, load_catalog
from orchestrator.batches.desk import BatchDesk, Opened, Order
from orchestrator.batches.progress import Progress
from orchestrator.batches.records import Batch, BatchOptions, Slice
from shared.database import Database
from shared.settings import find_secret
from tests.fakes.scripted_pool import ScriptedPool
from tests.running import build_runner


class SlicesInMemory:
    """The broker's queue for bulk work, as a list."""

    def __init__(self) -> None:
        self.waiting: list[Slice] = []
        self.sent = 0
        self.is_away = False

    def read_backlog(self) -> int | None:
        return None if self.is_away else len(self.waiting)

    def send(self, slices: Sequence[Slice]) -> None:
        self.sent += sum(len(each.job_ids) for each in slices)
        self.waiting += slices


class BulkYard:
    """A desk for batches of one database, with files in one directory."""

    def __init__(self, database: Database, directory: Path) -> None:
        self.database = database
        self.directory = directory
        self.queue = SlicesInMemory()
        self.desk = BatchDesk(database, load_catalog(DEFAULT_CATALOG, find_secret), self.queue)
        self.pool = ScriptedPool()
        self.seen: list[Progress] = []

    def write_input(self, lines: Sequence[Any], name: str = "in.jsonl") -> Path:
        path = self.directory / name
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return path

    def build_order(self, path: Path, **fields: Any) -> Order:
        options = BatchOptions(model="fast", **fields.pop("options", {}))
        return Order(path, "default", options, **fields)

    async def take_in(self, lines: Sequence[Any], **fields: Any) -> Opened:
        """As `--detach` does."""
        opened = await self.desk.open(self.build_order(self.write_input(lines), **fields))
        await self.desk.run(opened, None, self.seen.append)
        return opened

    async def work(self, most_slices: int | None = None) -> int:
        """Run what is on the queue; returns how many jobs there were."""
        taken, self.queue.waiting = self.queue.waiting[:most_slices], self.queue.waiting[len(self.queue.waiting) :]
        runner = build_runner(self.database, self.pool)
        for each in taken:
            await runner.handle_slice(each.tenant_id, each.job_ids)
        return sum(len(each.job_ids) for each in taken)

    async def write_out(self, batch: Batch, name: str = "out.jsonl") -> list[dict[str, Any]]:
        """The answers of a batch that has ended."""
        await self.desk.resume(batch, self.directory / name, self.seen.append)
        return self.read_output(name)

    def read_output(self, name: str = "out.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / name).read_text().splitlines()]
