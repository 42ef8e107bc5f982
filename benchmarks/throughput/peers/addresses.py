"""What every program of the bench finds in its environment, and the two ends of the job. Standard library only."""

import os
from typing import Final

MODEL_URL: Final = os.environ["BENCH_MODEL_URL"]
DATABASE_URL: Final = os.environ["BENCH_DATABASE_URL"]
REDIS_URL: Final = os.environ["BENCH_REDIS_URL"]
IN_FLIGHT: Final = int(os.environ["BENCH_IN_FLIGHT"])
"""Jobs that one process may have under way."""
PROCESSES: Final = int(os.environ["BENCH_PROCESSES"])
MODEL_SECONDS: Final = 120
INSERT: Final = "insert into answers (id, content) values ($1, $2)"


def build_body(number: int) -> dict[str, object]:
    return {"model": "bench-model", "messages": [{"role": "user", "content": f"question {number}"}]}
