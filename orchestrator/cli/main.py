"""Puts the commands together, and turns every error of ours into one line instead of a traceback."""

import sys

import typer

from orchestrator.cli import agents, batch, failed, jobs, migrate, processes, status, up
from shared.errors import ConfigurationError, InputError, LLMYardError

app = typer.Typer(
    help="A durable job queue for LLM work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("migrate")(migrate.migrate)
app.command("submit")(jobs.submit)
app.command("result")(jobs.result)
app.command("cancel")(jobs.cancel)
app.command("status")(status.status)
app.add_typer(agents.app, name="agents")
app.add_typer(batch.app, name="batch")
app.add_typer(failed.app, name="failed")
app.command("worker")(processes.worker)
app.command("beat")(processes.beat)
app.command("api")(processes.api)
app.command("pool")(processes.pool)
app.command("flower")(processes.flower)


def main() -> None:
    try:
        app()
    except LLMYardError as error:
        print(f"llmyard: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigurationError | InputError) else 1)


if __name__ == "__main__":
    main()
