"""The file that answers are written to: beside its place until it is whole, and never begun anew for being interrupted.

What is in it is how far the answers were written: one line for each of the input. A line that was cut off is taken out.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final
from uuid import UUID

from shared.errors import InputError

_BLOCK_BYTES: Final = 1 << 20
_TAG: Final = slice(16, 24)
"""Digits of a batch's id that are drawn by lot."""


class PartialOutput:
    """Grows beside the file it is to become. The batch is in its name: another's answers are not gone on with."""

    def __init__(self, path: Path, batch_id: UUID) -> None:
        self.path = path
        self.part_path = path.with_name(f"{path.name}.{batch_id.hex[_TAG]}.part")
        self.lines = 0
        """So many are whole."""
        self._file: BinaryIO | None = None

    def __enter__(self) -> "PartialOutput":
        """
        Raises:
            InputError: nothing can be written there.
        """
        try:
            self.part_path.touch()
            self._file = self.part_path.open("r+b")
        except OSError as error:
            raise InputError(
                "output", f"cannot be written ({error.strerror})", "name a file in a folder of yours"
            ) from None
        self.lines, whole_bytes = _count_lines(self._file)
        self._file.truncate(whole_bytes)
        self._file.seek(whole_bytes)
        return self

    def write(self, lines: Iterable[bytes]) -> None:
        """Whole lines; they are in the file when this returns, whatever becomes of this process."""
        assert self._file is not None, "it is open"
        written = list(lines)
        self._file.write(b"".join(written))
        self._file.flush()
        self.lines += len(written)

    def finish(self) -> None:
        """It is whole: put it in its place."""
        assert self._file is not None, "it is open"
        os.fsync(self._file.fileno())
        self.part_path.replace(self.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _count_lines(file: BinaryIO) -> tuple[int, int]:
    """How many whole lines there are, and how many bytes they take."""
    lines = whole_bytes = offset = 0
    while block := file.read(_BLOCK_BYTES):
        lines += block.count(b"\n")
        if (end := block.rfind(b"\n")) >= 0:
            whole_bytes = offset + end + 1
        offset += len(block)
    return lines, whole_bytes
