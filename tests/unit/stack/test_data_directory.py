import stat
from pathlib import Path

import pytest

from orchestrator.stack.children import StackError
from orchestrator.stack.data_directory import make_data_directory, make_metrics_directory, only_stack_in, write_private


def test_a_second_stack_in_the_directory_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with only_stack_in(tmp_path), pytest.raises(StackError, match=r"already running on .* \(pid \d+ on "):
        only_stack_in(tmp_path).__enter__()


def test_the_directory_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with only_stack_in(tmp_path):
            pass


def test_secrets_are_their_owners_alone(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("old")
    secret.chmod(0o644)
    write_private(secret, "new")
    assert secret.read_text() == "new"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [secret]


def test_a_place_that_cannot_be_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="file/data cannot be used as data directory: Not a directory"):
        make_data_directory(tmp_path / "file" / "data")


def test_what_an_earlier_stack_counted_is_gone(tmp_path: Path) -> None:
    (make_metrics_directory(tmp_path) / "counter_11.db").touch()
    metrics = make_metrics_directory(tmp_path)
    assert list(metrics.iterdir()) == []
    assert stat.S_IMODE(metrics.stat().st_mode) == 0o700
