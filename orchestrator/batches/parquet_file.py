"""Rows of a Parquet file. The only file that imports pyarrow, an optional extra: loaded where such a file is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pyarrow import ArrowInvalid
from pyarrow.parquet import ParquetFile

from shared.errors import InputError

_ROWS_AT_ONCE: Final = 1000


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """One after the other, some in memory at a time.

    Raises:
        InputError: it is no Parquet file.
    """
    try:
        file = ParquetFile(path)
    except ArrowInvalid as error:
        raise InputError("input", f"{path.name!r} is no Parquet file ({error})", "rename or convert it") from error
    with file:
        for rows in file.iter_batches(_ROWS_AT_ONCE):
            yield from rows.to_pylist()
