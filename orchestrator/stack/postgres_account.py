"""Who runs the embedded Postgres when we are root, and what that user must be let through to.

Postgres refuses to run as root, and in containers and batch jobs we often are. The wheel's own answer opens every
parent directory for reading by everybody; passing through is enough, and only where it is not possible already.
"""

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from orchestrator.stack.children import StackError, run_as

ACCOUNT = "pgserver"


def find_postgres_account() -> str | None:
    """None when we are not root: the server then runs as ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(ACCOUNT)
    except KeyError:
        _make_account()
    return ACCOUNT


def _make_account() -> None:
    program = shutil.which("useradd") or "useradd"
    try:
        subprocess.run((program, "--system", "--no-create-home", ACCOUNT), check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise StackError(
            f"Postgres does not run as root, and the user {ACCOUNT!r} could not be made ({error}):"
            " start llmyard as another user, or set DATABASE_URL."
        ) from error


def let_account_reach(account: str | None, data_directory: Path, binaries: Path, say: Callable[[str], None]) -> None:
    if account is None:
        return
    try:
        for directory in (data_directory.resolve(), binaries.resolve()):
            _let_pass(directory)
            for parent in directory.parents:
                if _let_pass(parent):
                    say(f"Postgres runs as the user {account!r}: others may now pass through {parent} (chmod o+x).")
        if not _can_run(account, binaries / "postgres"):
            _let_read(binaries.parents[1])
    except OSError as error:
        raise StackError(
            f"The user {account!r}, which runs Postgres because root may not, cannot reach its files ({error}):"
            " choose another directory with --data, or set DATABASE_URL."
        ) from error


def _let_pass(directory: Path) -> bool:
    """Whether that needed a change."""
    mode = directory.stat().st_mode
    if mode & stat.S_IXOTH:
        return False
    directory.chmod(mode | stat.S_IXOTH)
    return True


def _can_run(account: str, program: Path) -> bool:
    try:
        finished = subprocess.run(
            (str(program), "--version"), capture_output=True, check=False, cwd=program.parent, **run_as(account)
        )
    except PermissionError:
        return False
    return finished.returncode == 0


def _let_read(package: Path) -> None:
    """The package and the libraries beside it: they are closed after an installation under a strict umask."""
    libraries = package.with_name(f"{package.name}.libs")
    for place in (package, *package.rglob("*"), *libraries.glob("**/*"), *libraries.parent.glob(libraries.name)):
        mode = place.stat().st_mode
        place.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))
