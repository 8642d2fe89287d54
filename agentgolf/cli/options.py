"""Options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

Runs = Annotated[Path | None, typer.Option("--runs", help="Folder of the ledger and of all runs.  [default: runs]")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
CourseOption = Annotated[
    str | None, typer.Option("--course", help="A shipped course or a folder.  [default: practice]")
]
Track = Annotated[str | None, typer.Option("--track", help="A track of the course.  [default: the course's]")]
MaxCost = Annotated[float | None, typer.Option("--max-cost", min=0, help="US dollars that a run's model may cost.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=0, help="Tokens that a run's model may use, in and out.")
]
Record = Annotated[Path | None, typer.Option("--record", help="Keep the model's replies in this file as well.")]
Replay = Annotated[Path | None, typer.Option("--replay", help="Take the model's replies from this file; ask no model.")]
SandboxOption = Annotated[str | None, typer.Option("--sandbox", help="docker, process or auto.  [default: auto]")]
Jobs = Annotated[int | None, typer.Option("--jobs", help="Trainings at once.  [default: as many as fit, 4 at most]")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything drawn by chance.  [default: 0]")]
Unsafe = Annotated[
    bool,
    typer.Option(
        "--i-know-this-is-unsafe", help="Run code that nobody has read where neither Docker nor bubblewrap holds it."
    ),
]
