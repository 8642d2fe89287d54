"""Reads a scaffold: a folder with scaffold.toml that says which proposer works, and how."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentgolf.errors import UsageError
from agentgolf.proposer.base import Proposer
from agentgolf.proposer.catalogue import load_catalogue
from agentgolf.proposer.playbook import PlaybookProposer
from agentgolf.proposer.rotation import RotationProposer
from agentgolf.proposer.scripted import ScriptedProposer
from agentgolf.proposer.tuner import TunerProposer

SCAFFOLD_FILE = "scaffold.toml"
Kind = Literal["playbook", "tuner", "scripted"]


class _Spec(BaseModel):
    """scaffold.toml. With several proposers, `turns` says how many proposals each makes in a row."""

    model_config = ConfigDict(extra="forbid")

    summary: str
    proposers: list[Kind] = Field(min_length=1)
    turns: list[int] = []
    script: str = ""


TRUSTED: frozenset[Kind] = frozenset(("playbook", "tuner"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """`trusted`: all that it can propose comes from agentgolf's own offline proposers."""

    name: str
    summary: str
    trusted: bool
    proposer: Proposer


def load_scaffold(folder: Path, playbook: Path) -> Scaffold:
    """Raises `UsageError` when the folder has no valid scaffold.toml."""
    path = folder / SCAFFOLD_FILE
    try:
        spec = _Spec.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"no scaffold at {folder}: {path.name} cannot be read ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {key}: {first['msg']}") from error
    made: list[Proposer] = []
    for kind in spec.proposers:
        if kind == "playbook":
            made.append(PlaybookProposer(load_catalogue(playbook)))
        elif kind == "tuner":
            made.append(TunerProposer())
        else:
            made.append(ScriptedProposer(folder / spec.script))
    turns = spec.turns or [1] * len(made)
    if len(turns) != len(made) or min(turns) < 1:
        raise UsageError(f"{path}: turns needs one number of at least 1 for each proposer")
    proposer = made[0] if len(made) == 1 else RotationProposer(made, turns)
    return Scaffold(
        name=folder.name, summary=spec.summary, trusted=TRUSTED.issuperset(spec.proposers), proposer=proposer
    )
