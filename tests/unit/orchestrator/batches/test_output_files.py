"""What is written stays written, and nothing is there twice."""

from pathlib import Path

import pytest

from orchestrator.batches.ids import build_batch_id
from orchestrator.batches.output_files import PartialOutput
from shared.errors import InputError

BATCH = build_batch_id()


def test_it_is_in_its_place_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with PartialOutput(path, BATCH) as output:
        output.write([b"1\n", b"2\n"])
        assert not path.exists()
        output.finish()
    assert path.read_bytes() == b"1\n2\n"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_in_the_file_at_once(tmp_path: Path) -> None:
    with PartialOutput(tmp_path / "out.jsonl", BATCH) as output:
        output.write([b"1\n"])
        assert output.part_path.read_bytes() == b"1\n"


@pytest.mark.parametrize(
    ("left", "lines", "kept"),
    [
        (b"", 0, b""),
        (b"1\n2\n", 2, b"1\n2\n"),
        (b"1\n2\nhal", 2, b"1\n2\n"),
        (b"hal", 0, b""),
        (b"x" * 3_000_000 + b"\n" + b"y" * 3_000_000, 1, b"x" * 3_000_000 + b"\n"),
    ],
    ids=["nothing", "whole lines", "a line cut off", "only half a line", "long lines"],
)
def test_it_is_gone_on_with_behind_its_last_whole_line(tmp_path: Path, left: bytes, lines: int, kept: bytes) -> None:
    with PartialOutput(tmp_path / "out.jsonl", BATCH) as output:
        output.part_path.write_bytes(left)
    with PartialOutput(tmp_path / "out.jsonl", BATCH) as output:
        assert output.lines == lines
        output.write([b"next\n"])
        assert output.lines == lines + 1
        output.finish()
    assert (tmp_path / "out.jsonl").read_bytes() == kept + b"next\n"


def test_another_batch_does_not_go_on_with_it(tmp_path: Path) -> None:
    with PartialOutput(tmp_path / "out.jsonl", BATCH) as output:
        output.write([b"1\n"])
    with PartialOutput(tmp_path / "out.jsonl", build_batch_id()) as output:
        assert output.lines == 0


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="output: cannot be written"),
        PartialOutput(tmp_path / "none" / "out.jsonl", BATCH),
    ):
        pass
