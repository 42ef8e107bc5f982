"""Programs whose clock is wrong: started, not forked, as a library is preloaded when a program starts."""

import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.settings import child_environment

SOURCE: Final = Path(__file__).with_suffix(".c")
COMPILER: Final = "cc"
TOLERANCE_SECONDS: Final = 30.0


def find_obstacle() -> str | None:
    """Why no clock can be shifted here."""
    if sys.platform != "linux":
        return "shifts clocks on Linux only"
    return None if shutil.which(COMPILER) else f"needs a C compiler ({COMPILER}) to shift a clock"


def build_library(directory: Path) -> Path:
    """Compile what is preloaded."""
    library = directory / "shifted_clock.so"
    compiler = shutil.which(COMPILER) or COMPILER
    subprocess.run((compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"), check=True)
    return library


@dataclass(frozen=True, slots=True)
class ShiftedClock:
    """The clock of some programs; it may be set anew while they run."""

    library: Path
    file: Path
    """Holds the shift, and is mapped into the programs."""

    def set(self, seconds: int) -> None:
        """So far ahead of the true time; behind it if negative."""
        if not self.file.exists():
            self.file.write_bytes(bytes(8))
        with self.file.open("r+b") as file:
            file.write(struct.pack("q", seconds))

    @property
    def environment(self) -> Mapping[str, str]:
        """For programs that are to go by this clock."""
        return {"LD_PRELOAD": str(self.library), "SHIFTED_CLOCK_FILE": str(self.file)}

    def is_shifted(self, seconds: int) -> bool:
        """Whether a Python that goes by it really sees this shift."""
        told = subprocess.run(
            (sys.executable, "-c", "import time; print(time.time())"),
            env=child_environment(self.environment),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return abs(float(told.stdout) - time.time() - seconds) < TOLERANCE_SECONDS
