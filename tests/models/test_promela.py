"""The model of the ledger, searched whole; and again without each of its safeguards, which is then to be found out."""

import importlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import TextClause

from orchestrator import batches, failed_requests, jobs

MODEL = Path(__file__).with_name("ledger.pml")
COMPILER = shutil.which("gcc") or shutil.which("cc")
ENOUGH_PROCESSES = "-DNFAIR=3"
MOVES_A_JOB = re.compile(r"(insert into|update|delete from) (jobs|leases)\b")

needs_spin = pytest.mark.skipif(
    not (shutil.which("spin") and COMPILER),
    reason="spin (Debian's package of that name) and a C compiler are needed to search the model",
)


@dataclass(frozen=True)
class Mutation:
    """A safeguard of the model, without it, and the claim that then no longer holds."""

    name: str
    safeguard: str
    without: str
    claim: str = "agrees"
    faults: int = 1


MUTATIONS = (
    Mutation("a stale run records", "state == running && latest == mine", "state == running"),
    Mutation("a run records whatever the job's state", "state == running && latest == mine", "latest == mine"),
    Mutation("a job in hand is claimed again", ":: state == queued -> begin_run", ":: !is_final -> begin_run"),
    Mutation("a lease outlives its run", "end_run();\n                 if", "if"),
    Mutation("a lease outlives a cancel", "move_to(cancelled); end_run()", "move_to(cancelled)"),
    Mutation("a cancel comes late", "state != absent && !is_final -> move_to(c", "state != absent -> move_to(c"),
    Mutation("a discard comes late", "state == parked -> move_to(d", "request != absent -> move_to(d"),
    Mutation("a release takes what was released", "request == parked && state == parked", "request != absent"),
    Mutation("a cancel leaves the failed request", "end_run(); answer(); settle(discarded)", "end_run(); answer()"),
    Mutation("a quarantine gives no result", "move_to(quarantined); answer();", "move_to(quarantined);"),
    Mutation("a crash is forgiven twice", "expired[held[me]] = false;", "skip;", faults=2),
    Mutation("crashes are not counted", "    crash_count++;\n", "", "ends"),
    Mutation("no quarantine", "crash_count >= MAX_CRASHES", "false", "ends"),
    Mutation("no lease runs out", "lease != 0 && (lapsed || !is_held) ->", "false ->", "ends"),
    Mutation("nothing undelivered is sent again", "state == queued && batch == absent && copies < MAX_COPIES", "false",
             "ends"),
    Mutation("a lost slice is not fed again", "&& batch == running && copies == 0 ->", "&& false ->", "ends"),
    Mutation("a line comes into a cancelled batch", "batch == running -> move_to(queued)", "true -> move_to(queued)"),
    Mutation("a batch is done before its line", "batch == running && is_final", "batch == running && true"),
    Mutation("a batch's cancel comes late", ":: state != absent && !is_final ->\n", ":: state != absent ->\n"),
    Mutation("a lease outlives its batch's cancel", "move_to(cancelled);\n              end_run();",
             "move_to(cancelled);"),
    Mutation("a batch's cancel leaves the failed request", "answer();\n              settle(discarded)", "answer()"),
    Mutation("a batch's cancel gives no result", "answer();\n              settle(discarded)", "settle(discarded)"),
    Mutation("a cut off cancel is not gone on with", "batch == cancelling ->\n", "false ->\n", "ends"),
    Mutation("no drain", "request == parked && state == parked ->", "false ->", "ends"),
    Mutation("outages without end", "held[me] != 0 && faults > 0 -> faults--; outcome = parked",
             "held[me] != 0 -> outcome = parked", "ends"),
)  # fmt: skip


class Search:
    """`pan`, made from a model by `spin` and the C compiler."""

    def __init__(self, directory: Path, model: str, *, faults: int, optimisation: str) -> None:
        (directory / "ledger.pml").write_text(model)
        self._run = partial(
            subprocess.run, cwd=directory, check=True, capture_output=True, text=True, timeout=60, stdin=None
        )
        self._run(["spin", "-a", f"-DFAULTS={faults}", "ledger.pml"])
        self._run([str(COMPILER), optimisation, ENOUGH_PROCESSES, "-DMEMLIM=512", "-o", "pan", "pan.c"])

    def report(self, claim: str) -> str:
        """What pan says of a claim: of whoever can go on, each does so some day."""
        report: str = self._run(["./pan", "-a", "-f", "-m100000", "-w22", "-N", claim]).stdout
        return report


def count_errors(report: str) -> int:
    found = re.search(r"errors: (\d+)", report)
    assert found, report
    return int(found[1])


@needs_spin
def test_every_way_ends_once_and_the_tables_agree_at_every_moment(tmp_path: Path) -> None:
    search = Search(tmp_path, MODEL.read_text(), faults=2, optimisation="-O2")
    for claim in ("ends", "agrees"):
        report = search.report(claim)
        assert count_errors(report) == 0, report
        assert "not completed" not in report
        assert "too small" not in report
    # Of a step that is never taken the model would say nothing.
    assert set(re.findall(r'ledger.pml:\d+, state \d+, "(.*)"', report)) == {"-end-"}, report


@needs_spin
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_without_a_safeguard_the_search_finds_what_goes_wrong(tmp_path: Path, mutation: Mutation) -> None:
    model = MODEL.read_text()
    assert model.count(mutation.safeguard) == 1
    broken = model.replace(mutation.safeguard, mutation.without)
    search = Search(tmp_path, broken, faults=mutation.faults, optimisation="-O0")
    assert count_errors(search.report(mutation.claim)) == 1


def find_modules_with_statements(package: ModuleType) -> list[str]:
    """Only these are imported, as others need extras that may not be installed."""
    (folder,) = map(Path, package.__path__)
    return [f"{folder.name}.{file.stem}" for file in sorted(folder.glob("*.py")) if "sqlalchemy" in file.read_text()]


def test_every_statement_that_moves_a_job_stands_in_the_model() -> None:
    modelled = set(re.findall(r"[\w.]+\._[A-Z_]+", MODEL.read_text()))
    for name in modelled:
        module, _, statement = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(f"orchestrator.{module}"), statement), TextClause)
    moving = {
        f"{module}.{name}"
        for package in (jobs, failed_requests, batches)
        for module in find_modules_with_statements(package)
        for name, statement in vars(importlib.import_module(f"orchestrator.{module}")).items()
        if isinstance(statement, TextClause) and MOVES_A_JOB.search(statement.text)
    }
    assert moving
    assert moving <= modelled
