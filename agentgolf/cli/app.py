"""The `agentgolf` command. Heavy imports wait inside the commands: `--help` must be quick."""

import os
import sys

import typer

from agentgolf import __version__
from agentgolf.cli import (
    care_commands,
    compare_commands,
    read_commands,
    run_commands,
    scaffold_commands,
    steer_commands,
)

EPILOG = "Exit codes: 0 done, 1 failed, 2 usage, 3 no improvement found, 4 environment not ready, 130 interrupted."

app = typer.Typer(
    name="agentgolf",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=EPILOG,
    help="Plays Parameter Golf unattended: proposes changes, trains, scores and keeps what is really better.",
)
for commands in (run_commands, compare_commands, read_commands, care_commands, scaffold_commands, steer_commands):
    commands.register(app)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"agentgolf {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run a command; an error that was foreseen is one sentence on stderr and its exit code."""
    from agentgolf.errors import AgentgolfError
    from agentgolf.proposer.keys import take

    take("OPENAI_API_KEY")  # before git or anything else is started that would inherit it

    # Without git its Python package would fail on import; the commands that need git say so themselves.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        app()
    except AgentgolfError as error:
        print(f"agentgolf: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        print("agentgolf: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        from agentgolf.ledger.failures import disk_error

        known = disk_error(error)
        if known is None:
            raise
        print(f"agentgolf: {known}", file=sys.stderr)
        sys.exit(known.exit_code)


if __name__ == "__main__":
    main()
