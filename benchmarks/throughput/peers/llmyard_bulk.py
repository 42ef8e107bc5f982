"""llmyard's door for bulk work, as somebody at a terminal uses it: `llmyard batch run`, left running by Ctrl-C.

It is left as soon as all lines are in the ledger and their slices on the queue, as the clock runs from there.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import redis
from addresses import DATABASE_URL, REDIS_URL

RUN = (sys.executable, "-P", "-m", "orchestrator.cli.main", "batch", "run")
QUEUE = "bulk"
TAKEN_IN = "select count(*) from jobs"
SECONDS = 100.0
CALM_SECONDS = 2.0
"""It looks once a second whether there is room for more slices."""


def main() -> None:
    first, count = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as directory:
        lines = Path(directory) / f"{first}.jsonl"
        lines.write_text("".join(json.dumps({"prompt": f"question {n}"}) + "\n" for n in range(first, first + count)))
        client = subprocess.Popen((*RUN, str(lines), "-o", f"{lines}.out"), stdout=subprocess.DEVNULL)
        try:
            asyncio.run(asyncio.wait_for(wait_until_taken_in(client, first - 1 + count), SECONDS))
            wait_until_calm()
        finally:
            client.send_signal(signal.SIGINT)
            client.wait(20)


async def wait_until_taken_in(client: "subprocess.Popen[bytes]", jobs: int) -> None:
    connection = await asyncpg.connect(DATABASE_URL)
    while await connection.fetchval(TAKEN_IN) < jobs:
        if client.poll() is not None:
            raise RuntimeError(f"`llmyard batch run` ended by itself with status {client.returncode}")
        await asyncio.sleep(0.1)
    await connection.close()


def wait_until_calm() -> None:
    """No slice has been added to the queue for a while, or taken from it."""
    with redis.Redis.from_url(REDIS_URL) as queue:
        length, since = queue.llen(QUEUE), time.monotonic()
        while time.monotonic() < since + CALM_SECONDS:
            time.sleep(0.1)
            now = queue.llen(QUEUE)
            length, since = (now, time.monotonic()) if now != length else (length, since)


if __name__ == "__main__":
    main()
