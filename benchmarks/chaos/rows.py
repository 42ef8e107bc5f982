"""The rows of the chaos table, in their order."""

from typing import Final

from benchmarks.chaos import (
    row_01_kills,
    row_02_throughput,
    row_03_broker,
    row_04_database,
    row_05_pauses,
    row_06_duplicates,
    row_07_outage,
    row_08_storms,
    row_09_poison,
    row_10_partition,
    row_11_backlog,
    row_12_snapshot,
    row_13_clocks,
    row_14_cancel,
)
from benchmarks.chaos.bench import Row

ROWS: Final[tuple[Row, ...]] = (
    row_01_kills.ROW,
    row_02_throughput.ROW,
    row_03_broker.ROW,
    row_04_database.ROW,
    row_05_pauses.ROW,
    row_06_duplicates.ROW,
    row_07_outage.ROW,
    row_08_storms.ROW,
    row_09_poison.ROW,
    row_10_partition.ROW,
    row_11_backlog.ROW,
    row_12_snapshot.ROW,
    row_13_clocks.ROW,
    row_14_cancel.ROW,
)
