"""A real executable that behaves like the Claude Code CLI, and misbehaves on demand."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

RESULT: Json = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "api_error_status": None,
    "duration_ms": 1900,
    "num_turns": 1,
    "result": "fine by me",
    "stop_reason": "end_turn",
    "session_id": "5f0c",
    "total_cost_usd": 0.0042,
    "usage": {"input_tokens": 3, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 2},
    "modelUsage": {"claude-sonnet-5-5": {"inputTokens": 3}},
    "permission_denials": [],
}

_SCRIPT = """#!{python} -S
import json, os, signal, subprocess, sys, time
from pathlib import Path

home = Path({home!r})
plan = json.loads((home / "plan.json").read_text())
if "--version" in sys.argv:
    print("2.1.110 (Claude Code)")
    sys.exit(plan["version_status"])
if plan["ignores_term"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
(home / "pid").write_text(str(os.getpid()))
if plan["has_child"]:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    (home / "child").write_text(str(child.pid))
heard = sys.stdin.read() if plan["reads"] else ""
system = [Path(value).read_text() for flag, value in zip(sys.argv, sys.argv[1:]) if flag == "--system-prompt-file"]
asked = dict(arguments=sys.argv[1:], prompt=heard, system=system, directory=os.getcwd())
asked["environment"] = {{name: value for name, value in os.environ.items() if name.startswith("ANTHROPIC")}}
with (home / "asked.jsonl").open("a") as written:
    written.write(json.dumps(asked) + "\\n")
sys.stderr.write(plan["complains"])
sys.stderr.flush()
for line in plan["streams" if "stream-json" in sys.argv and plan["streams"] else "writes"]:
    sys.stdout.write(line)
    sys.stdout.flush()
while plan["writes_without_end"]:
    sys.stdout.write("x" * 65536)
time.sleep(plan["sleeps"])
sys.exit(plan["status"])
"""


@dataclass(frozen=True)
class ClaudeCli:
    """Where it is, what it is to do, and what it was asked."""

    home: Path

    @property
    def command(self) -> str:
        return str(self.home / "claude")

    def plan(self, *writes: object, streams: Sequence[Json] = (), **changes: object) -> None:
        """Objects are written as lines of JSON, texts as they are; `streams` in their place when a stream is wanted."""
        plan = {
            "writes": [one if isinstance(one, str) else json.dumps(one) + "\n" for one in writes],
            "streams": [json.dumps(one) + "\n" for one in streams],
            "reads": True,
            "complains": "",
            "sleeps": 0,
            "status": 0,
            "version_status": 0,
            "ignores_term": False,
            "has_child": False,
            "writes_without_end": False,
        }
        (self.home / "plan.json").write_text(json.dumps({**plan, **changes}))

    @property
    def asked(self) -> Mapping[str, Any]:
        """The latest."""
        return self.list_asked()[-1]

    def list_asked(self) -> Sequence[Mapping[str, Any]]:
        written = self.home / "asked.jsonl"
        return [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []

    def find_pids(self) -> list[int]:
        """Of itself and its child, as far as they were started."""
        return [int((self.home / name).read_text() or 0) for name in ("pid", "child") if (self.home / name).exists()]


def install_claude_cli(home: Path) -> ClaudeCli:
    """By default it answers with `RESULT`."""
    cli = ClaudeCli(home)
    script = home / "claude"
    script.write_text(_SCRIPT.format(python=sys.executable, home=str(home)))
    script.chmod(0o755)
    cli.plan(RESULT)
    return cli
