"""Reads a file's records one after the other, in bounded memory: JSON lines or a table.

What is wrong with a record is handed on as a value: one bad line must not end a million good ones. What is wrong with
the file as a whole is raised.
"""

import csv
import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json

from orchestrator.messages import MAX_CONTENT_CHARACTERS, MAX_MESSAGE_CHARACTERS, refuse_unstorable
from shared.errors import ConfigurationError, InputError

_DIGEST_BYTES: Final = 1 << 20
_NUL: Final = b"\\u0000"
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Record:
    """One line or row."""

    number: int
    """Where it stands in the file: lines and rows count from 1, a table's header is none."""
    value: Any
    """A dict, or a text; None where it has a fault."""
    fault: InputError | None = None


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that was recognised."""

    path: Path
    noun: str
    """What users call a record of it."""
    read: Callable[[Path], Iterator[Record]]


def open_input(path: Path) -> InputFile:
    """
    Raises:
        InputError: there is no such file, or it is of no known kind.
    """
    if not path.is_file():
        raise InputError("input", f"there is no file {str(path)!r}", "name a .jsonl, .csv, .tsv or .parquet file")
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        problem = f"{path.name!r} has an ending that says nothing of its format"
        raise InputError("input", problem, "rename it to .jsonl, .csv, .tsv or .parquet")
    return InputFile(path, *kind)


def compute_digest(path: Path) -> str:
    """SHA-256 of the whole file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_DIGEST_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _read_json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if not line.isspace():
                yield _parse(number, line)


def _parse(number: int, raw: bytes) -> Record:
    if len(raw) > MAX_MESSAGE_CHARACTERS:
        fault = InputError("line", f"holds {len(raw):,} bytes", f"send at most {MAX_MESSAGE_CHARACTERS:,}")
        return Record(number, None, fault)
    try:
        value = from_json(raw, allow_inf_nan=False)
        if _NUL in raw:
            refuse_unstorable(value if isinstance(value, dict) else {"prompt": value})
    except InputError as fault:
        return Record(number, None, fault)
    except ValueError as error:
        return Record(number, None, InputError("line", f"is no JSON ({error})", "write one JSON value on each line"))
    return Record(number, value)


def _read_csv(path: Path) -> Iterator[Record]:
    return _read_table(path, ",")


def _read_tsv(path: Path) -> Iterator[Record]:
    return _read_table(path, "\t")


def _read_table(path: Path, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(MAX_CONTENT_CHARACTERS)
    # What is no UTF-8 comes as halves of surrogate pairs, which are then found in their row.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        header = next(rows, [])
        number = 0
        while (row := _next_row(rows)) is not None:
            if row:
                number += 1
                yield _build_row(number, header, row)


def _next_row(rows: Iterator[list[str]]) -> list[str] | InputError | None:
    try:
        return next(rows, None)
    except csv.Error as error:
        return InputError("row", f"cannot be read ({error})", "check its quotes and the length of its cells")


def _build_row(number: int, header: list[str], row: list[str] | InputError) -> Record:
    if isinstance(row, InputError):
        return Record(number, None, row)
    if len(row) > len(header):
        problem = f"has {len(row)} cells under {len(header)} names"
        return Record(number, None, InputError("row", problem, "put cells that hold the separator in quotes"))
    return Record(number, dict(zip(header, row, strict=False)))


def _read_parquet(path: Path) -> Iterator[Record]:
    try:
        parquet = importlib.import_module("orchestrator.batches.parquet_file")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "Parquet files need pyarrow: install it with `pip install 'llmyard[parquet]'`, or convert the file to .csv."
        ) from error
    for number, row in enumerate(parquet.read_rows(path), start=1):
        yield Record(number, row)


_KINDS: Mapping[str, tuple[str, Callable[[Path], Iterator[Record]]]] = {
    ".jsonl": ("line", _read_json_lines),
    ".ndjson": ("line", _read_json_lines),
    ".csv": ("row", _read_csv),
    ".tsv": ("row", _read_tsv),
    ".parquet": ("row", _read_parquet),
}
