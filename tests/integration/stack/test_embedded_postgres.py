import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest

from orchestrator.stack.children import Child, StackError
from orchestrator.stack.embedded_postgres import EmbeddedPostgres, prepare_postgres
from orchestrator.stack.supervisor import Supervisor


@pytest.fixture
def postgres(data_directory: Path) -> EmbeddedPostgres:
    return prepare_postgres(data_directory / "postgres", print, is_durable=False)


async def ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def kill(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)
    while child.exit_status() is None:
        pass


async def test_it_is_reached_over_a_socket_in_a_closed_directory_and_not_over_tcp(
    postgres: EmbeddedPostgres, supervisor: Supervisor
) -> None:
    child = supervisor.start(postgres.child())
    assert await ask(postgres.url, "SHOW server_version_num") >= "180000"
    assert await ask(postgres.url, "SHOW listen_addresses") == ""
    assert psutil.Process(child.pid).net_connections(kind="inet") == []
    assert stat.S_IMODE(postgres.socket_directory.stat().st_mode) == 0o700


async def test_data_survives_a_stop(postgres: EmbeddedPostgres, supervisor: Supervisor, data_directory: Path) -> None:
    supervisor.start(postgres.child())
    await ask(postgres.url, "CREATE TABLE kept AS SELECT 42 AS value")
    supervisor.stop()
    again = prepare_postgres(data_directory / "postgres", print, is_durable=False)
    supervisor.start(again.child())
    assert await ask(again.url, "SELECT value FROM kept") == 42


async def test_it_recovers_from_a_kill(
    postgres: EmbeddedPostgres, supervisor: Supervisor, data_directory: Path
) -> None:
    child = supervisor.start(postgres.child())
    await ask(postgres.url, "CREATE TABLE kept AS SELECT generate_series(1, 10000)")
    kill(child)
    supervisor.stop()
    again = prepare_postgres(data_directory / "postgres", print, is_durable=False)
    child = supervisor.start(again.child())
    assert "automatic recovery in progress" in child.new_log()
    assert await ask(again.url, "SELECT count(*) FROM kept") == 10000


async def test_a_stop_does_not_wait_for_open_sessions_and_leaves_no_backend(
    postgres: EmbeddedPostgres, supervisor: Supervisor
) -> None:
    child = supervisor.start(postgres.child())
    connection = await asyncpg.connect(postgres.url)
    running = psutil.Process(child.pid).children(recursive=True)
    assert [process for process in running if "llmyard" in " ".join(process.cmdline())]
    await asyncio.to_thread(supervisor.stop)
    assert [process for process in running if process.is_running()] == []
    connection.terminate()


def test_a_pid_file_that_names_some_other_program_does_not_keep_it_from_starting(
    postgres: EmbeddedPostgres, supervisor: Supervisor
) -> None:
    with subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE) as other:
        (postgres.directory / "postmaster.pid").write_text(f"{other.pid}\n{postgres.directory}\n")
        prepare_postgres(postgres.directory, print)
        assert not (postgres.directory / "postmaster.pid").exists()
        other.communicate(b"\n")


def test_a_long_path_gets_its_socket_elsewhere_for_the_time_of_the_run(
    data_directory: Path, supervisor: Supervisor
) -> None:
    deep = data_directory / ("d" * 100)
    deep.mkdir()
    postgres = prepare_postgres(deep / "postgres", print, is_durable=False)
    supervisor.start(postgres.child())
    assert stat.S_IMODE(postgres.socket_directory.stat().st_mode) == 0o700
    supervisor.stop()
    postgres.discard_socket_directory()
    assert not postgres.socket_directory.exists()
    assert postgres.directory.exists()


def test_a_set_up_that_was_interrupted_is_begun_again(data_directory: Path) -> None:
    (data_directory / "postgres.unfinished").mkdir()
    (data_directory / "postgres.unfinished" / "PG_VERSION").write_text("18\n")
    postgres = prepare_postgres(data_directory / "postgres", print, is_durable=False)
    assert (postgres.directory / "postgresql.conf").exists()
    assert not (data_directory / "postgres.unfinished").exists()


def test_data_of_another_version_is_refused(data_directory: Path) -> None:
    (data_directory / "postgres").mkdir()
    (data_directory / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(StackError, match="holds the data of PostgreSQL 17, and this is PostgreSQL 18"):
        prepare_postgres(data_directory / "postgres", print)
