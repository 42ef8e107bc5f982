"""What a call through the pool costs, beside the bare HTTP client and LiteLLM's Router: `make bench-pool`.

All clients ask the same model server, one after the other and in turns, each round in a process of its own.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
LIMITS = {
    "beyond_bare_ms": ("CPU ms a call beyond the bare client, 64 in flight", 0.5),
    "peer_ratio": ("LiteLLM's CPU as a multiple of ours, 64 in flight (at least)", 6.0),
    "import_seconds": ("`import llm_pool.pool`, s", 0.25),
    "import_mb": ("resident MB after it", 60.0),
    "growth_mb": ("MB that 12,000 calls add", 1.0),
}
IMPORT_PROBE = """
import resource, time
started = time.perf_counter()
import llm_pool.pool
took = time.perf_counter() - started
print(took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
"""
Figures = dict[str, float]


def main() -> int:
    options = read_options()
    with model_server() as base_url:
        rounds = [measure_round(base_url, options) for _ in range(options.rounds)]
        growth = run_client(sys.executable, "llmyard_pool.py", base_url, 12_000, 64)["growth_mb"]
    figures = sum_up(rounds) | {"growth_mb": growth} | measure_import()
    page = build_page(figures, options)
    print(page)
    if options.write:
        Path(options.write).write_text(page, encoding="utf-8")
    missed = find_missed(figures)
    print("\n".join(missed) or "every limit is kept")
    return 1 if missed else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", help="Python of an environment with litellm; without it the peer is left out")
    parser.add_argument("--calls", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", help="file for the table")
    return parser.parse_args()


@contextmanager
def model_server() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(HERE / "model_server.py"), str(port)])
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the model server does not listen")


def measure_round(base_url: str, options: argparse.Namespace) -> dict[str, Figures]:
    found = {
        name: run_client(sys.executable, file, base_url, options.calls, in_flight)
        for name, file, in_flight in (
            ("bare, 1", "bare.py", 1),
            ("llmyard, 1", "llmyard_pool.py", 1),
            ("bare, 64", "bare.py", 64),
            ("llmyard, 64", "llmyard_pool.py", 64),
        )
    }
    if options.peer_python:
        peer_calls = options.calls // 4
        found["litellm, 64"] = run_client(options.peer_python, "litellm_router.py", base_url, peer_calls, 64)
    return found


def run_client(python: str, file: str, base_url: str, calls: int, in_flight: int) -> Figures:
    command = [python, str(HERE / "clients" / file), base_url, str(calls), str(in_flight)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures: Figures = json.loads(output.splitlines()[-1])
    return figures


def sum_up(rounds: Sequence[dict[str, Figures]]) -> Figures:
    """Of each client its cheapest round: what else a shared machine does only ever adds to it."""
    best = {name: min((found[name] for found in rounds), key=lambda figures: figures["cpu_ms"]) for name in rounds[0]}
    figures = {f"{name}: {key}": value for name, found in best.items() for key, value in found.items()}
    figures["beyond_bare_ms"] = best["llmyard, 64"]["cpu_ms"] - best["bare, 64"]["cpu_ms"]
    if "litellm, 64" in best:
        figures["peer_ratio"] = best["litellm, 64"]["cpu_ms"] / best["llmyard, 64"]["cpu_ms"]
    return figures


def measure_import() -> Figures:
    outputs = [
        subprocess.run([sys.executable, "-c", IMPORT_PROBE], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(5)
    ]
    return {
        "import_seconds": min(float(seconds) for seconds, _ in outputs),
        "import_mb": max(float(megabytes) for _, megabytes in outputs),
    }


def build_page(figures: Figures, options: argparse.Namespace) -> str:
    names = dict.fromkeys(key.partition(": ")[0] for key in figures if ": " in key)
    rows = [
        f"| {name} | {figures[f'{name}: cpu_ms']:.3f} | {figures[f'{name}: calls_per_second']:,.0f} |"
        f" {figures[f'{name}: resident_mb']:.0f} |"
        for name in names
    ]
    summary = [
        f"| {label} | {figures[name]:.2f} | {limit:g} |" for name, (label, limit) in LIMITS.items() if name in figures
    ]
    return "\n".join(
        [
            "# What a call through the pool costs",
            "",
            "This page answers: how much does the pool add to a call, and how much does LiteLLM's Router?",
            "",
            f"`make bench-pool` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.system()}, "
            f"Python {platform.python_version()}, aiohttp {version('aiohttp')}; {options.rounds} rounds of "
            f"{options.calls} calls, of each client",
            "its cheapest round, as others on the machine only ever add. The model server answers at once and runs",
            "beside. llmyard has every middleware at work over memory stores, with limits, budgets, cache and metrics.",
            "",
            "| client, calls in flight | CPU ms a call | calls/s | resident MB |",
            "|---|---|---|---|",
            *rows,
            "",
            "| figure | measured | limit |",
            "|---|---|---|",
            *summary,
            "",
        ]
    )


def find_missed(figures: Figures) -> list[str]:
    """The ratio is to be at least its limit, everything else at most."""
    return [
        f"missed: {label} is {figures[name]:.3f}, its limit {limit:g}"
        for name, (label, limit) in LIMITS.items()
        if name in figures and (figures[name] < limit if name == "peer_ratio" else figures[name] > limit)
    ]


if __name__ == "__main__":
    sys.exit(main())
