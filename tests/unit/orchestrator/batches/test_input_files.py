"""Files as users have them."""

import importlib.util
import sys
from pathlib import Path

import pytest

from orchestrator.batches.input_files import Record, compute_digest, open_input
from shared.errors import ConfigurationError, InputError


def read(path: Path, content: bytes | str) -> list[Record]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = open_input(path)
    return list(source.read(source.path))


def values(records: list[Record]) -> list[tuple[int, object]]:
    return [(record.number, record.value) for record in records]


def test_json_lines(tmp_path: Path) -> None:
    records = read(tmp_path / "in.jsonl", b'\xef\xbb\xbf{"prompt": "a"}\n\n  \n"b"\r\n"c"')
    assert values(records) == [(1, {"prompt": "a"}), (4, "b"), (5, "c")]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"a": 1', "line: is no JSON ("),
        (b'{"a": NaN}', "line: is no JSON ("),
        (b'"\\ud800"', "line: is no JSON ("),
        (b'"caf\xe9"', "line: is no JSON ("),
        (b'{"a": "x\\u0000y"}', "a: holds a NUL character; remove \\u0000"),
        (b'"x\\u0000y"', "prompt: holds a NUL character"),
        (b'"' + b"x" * 4_000_000 + b'"', "line: holds 4,000,003 bytes; send at most 4,000,000"),
    ],
)
def test_a_line_with_a_fault_is_followed_by_the_next(tmp_path: Path, line: bytes, told: str) -> None:
    faulty, next_one = read(tmp_path / "in.jsonl", line + b'\n"fine"\n')
    assert str(faulty.fault).startswith(told)
    assert (next_one.number, next_one.value, next_one.fault) == (2, "fine", None)


def test_a_backslash_before_what_looks_like_a_nul_is_none(tmp_path: Path) -> None:
    assert read(tmp_path / "in.jsonl", b'"x\\\\u0000y"\n')[0].value == "x\\u0000y"


def test_a_table_with_quotes_and_line_breaks(tmp_path: Path) -> None:
    records = read(tmp_path / "in.csv", '\ufeffprompt,n\n"a, ""b""\nc",1\n\nd,2\n')
    assert values(records) == [(1, {"prompt": 'a, "b"\nc', "n": "1"}), (2, {"prompt": "d", "n": "2"})]


def test_tabs(tmp_path: Path) -> None:
    assert values(read(tmp_path / "in.tsv", "prompt\tn\na, b\t1\n")) == [(1, {"prompt": "a, b", "n": "1"})]


def test_a_row_with_too_many_cells_or_too_few(tmp_path: Path) -> None:
    many, few, fine = read(tmp_path / "in.csv", "prompt,n\na,b,c\nd\ne,1\n")
    assert str(many.fault) == "row: has 3 cells under 2 names; put cells that hold the separator in quotes"
    assert (few.value, fine.value) == ({"prompt": "d"}, {"prompt": "e", "n": "1"})


def test_a_cell_that_is_too_long_costs_its_row_only(tmp_path: Path) -> None:
    long, fine = read(tmp_path / "in.csv", f"prompt\n{'x' * 1_000_001}\nfine\n")
    assert str(long.fault).startswith("row: cannot be read (field larger than field limit")
    assert fine.value == {"prompt": "fine"}


def test_what_is_no_utf8_costs_its_row_only(tmp_path: Path) -> None:
    odd, fine = read(tmp_path / "in.csv", b"prompt\ncaf\xe9\nfine\n")
    assert odd.value == {"prompt": "caf\udce9"}, "which a prompt may not hold"
    assert fine.value == {"prompt": "fine"}


@pytest.mark.parametrize("name", ["in.txt", "in"])
def test_a_file_of_no_known_kind(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"rename it to \.jsonl, \.csv, \.tsv or \.parquet"):
        read(tmp_path / name, "x")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input: there is no file '.*in\.jsonl'"):
        open_input(tmp_path / "in.jsonl")


def test_a_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    one.write_bytes(b"x" * 3_000_000)
    same.write_bytes(b"x" * 3_000_000)
    other.write_bytes(b"x" * 2_999_999 + b"y")
    assert compute_digest(one) == compute_digest(same) != compute_digest(other)


def test_parquet_without_pyarrow_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "orchestrator.batches.parquet_file", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'llmyard\[parquet\]'"):
        read(tmp_path / "in.parquet", "PAR1")


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is an extra of its own")
def test_parquet(tmp_path: Path) -> None:
    from pyarrow import Table
    from pyarrow.parquet import write_table

    write_table(Table.from_pylist([{"prompt": f"p{n}", "n": n} for n in range(2500)]), tmp_path / "in.parquet")
    records = list(open_input(tmp_path / "in.parquet").read(tmp_path / "in.parquet"))
    assert values(records) == [(n + 1, {"prompt": f"p{n}", "n": n}) for n in range(2500)]
    with pytest.raises(InputError, match=r"'no\.parquet' is no Parquet file"):
        read(tmp_path / "no.parquet", "x")
