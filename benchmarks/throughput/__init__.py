"""Ours beside peers, on the same job, on the same machine, in one run: `make bench`.

    python -m benchmarks.throughput [--only ours,taskiq,floor] [--scenarios 1,latency] [--short] [--write docs]

The job: ask an OpenAI-compatible model server over HTTP, store the answer in Postgres, readable by its id. Every system
runs as whole processes in an environment of its own (`requirements/peers/`), on a Postgres and a Valkey of the
bench's own, with one database for each measurement.

How it is measured: workers are started and warmed up until each of them has asked the model; then they are stopped
(SIGSTOP), the jobs are put on the queue, and the clock runs from the moment they go on (SIGCONT) until the last
answer can be read. So nobody's enqueueing is measured, and nobody begins early.

To add a system: one file in `peers/`, one lock in `requirements/peers/`, one entry in `systems.py`.
"""
