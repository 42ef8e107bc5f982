"""A virtual environment for each peer, from its hashed lock: they want other versions of the same libraries."""

import hashlib
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
LOCKS: Final = ROOT / "requirements" / "peers"
ENVIRONMENTS: Final = ROOT / ".venv-peers"


def make_environment(name: str) -> Path:
    """Its `bin` directory; installed anew when the lock has changed.

    Raises:
        subprocess.CalledProcessError: something cannot be installed.
    """
    directory, lock = ENVIRONMENTS / name, LOCKS / f"{name}.txt"
    stamp, wanted = directory / "lock.sha256", hashlib.sha256(lock.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {name} (requirements/peers/{name}.txt)", flush=True)
        subprocess.run((sys.executable, "-m", "venv", str(directory)), check=True)
        python = str(directory / "bin" / "python")
        pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--progress-bar", "off")
        subprocess.run((*pip, "--require-hashes", "-r", str(lock)), check=True)
        stamp.write_text(wanted)
    return directory / "bin"


def read_versions(binaries: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """Of what is installed there."""
    (site_packages,) = binaries.parent.glob("lib/python*/site-packages")
    found = {found.metadata["Name"].lower(): found.version for found in distributions(path=[str(site_packages)])}
    return {package: found[package] for package in packages}
