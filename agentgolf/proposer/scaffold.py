"""Reads a scaffold: a folder with scaffold.toml that says which proposer works, and how."""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentgolf.errors import UsageError
from agentgolf.proposer.agent import AgentProposer, Prompts
from agentgolf.proposer.base import Proposer
from agentgolf.proposer.catalogue import load_catalogue
from agentgolf.proposer.llm import Endpoint, Model
from agentgolf.proposer.playbook import PlaybookProposer
from agentgolf.proposer.rotation import RotationProposer
from agentgolf.proposer.scripted import ScriptedProposer
from agentgolf.proposer.tuner import TunerProposer

SCAFFOLD_FILE = "scaffold.toml"
Kind = Literal["playbook", "tuner", "scripted", "agent"]
NO_KEY = "none"


class ModelSpec(BaseModel):
    """Which model an agent asks. AGENTGOLF_MODEL and OPENAI_BASE_URL win over `name` and `base_url`.

    `wire` is the protocol: responses for OpenAI's own server and chat for any other, unless it is said.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = "gpt-5-mini"
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    wire: Literal["responses", "chat"] | None = None
    reasoning_effort: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = Field(default=None, gt=0)
    timeout_seconds: float = Field(default=600.0, gt=0)


class AgentSpec(BaseModel):
    """How an agent works. `steps` are templates, asked one after the other; the last reply holds the edit.

    `repairs`: how often a reply without a usable edit goes back to the model.
    """

    model_config = ConfigDict(extra="forbid")

    steps: list[str] = Field(default=["task.md"], min_length=1)
    repairs: int = Field(default=2, ge=0, le=10)


class ScaffoldSpec(BaseModel):
    """scaffold.toml. With several proposers, `turns` says how many proposals each makes in a row."""

    model_config = ConfigDict(extra="forbid")

    summary: str
    proposers: list[Kind] = Field(min_length=1)
    turns: list[int] = []
    script: str = ""
    model: ModelSpec = ModelSpec()
    agent: AgentSpec = AgentSpec()


TRUSTED: frozenset[Kind] = frozenset(("playbook", "tuner"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """`trusted`: all that it can propose comes from agentgolf's own offline proposers. `model`: its name, if any."""

    name: str
    summary: str
    trusted: bool
    proposer: Proposer
    model: str | None = None


def load_scaffold(folder: Path, playbook: Path, common: Path, note: Callable[[str], None] = lambda _: None) -> Scaffold:
    """`common` has the templates that a scaffold's own folder may lack.

    Raises `UsageError` when the folder has no valid scaffold.toml, or its model no key.
    """
    path = folder / SCAFFOLD_FILE
    spec = read_spec(path)
    made = [_proposer(kind, spec, folder, playbook, common, note) for kind in spec.proposers]
    turns = spec.turns or [1] * len(made)
    if len(turns) != len(made) or min(turns) < 1:
        raise UsageError(f"{path}: turns needs one number of at least 1 for each proposer")
    return Scaffold(
        name=folder.name,
        summary=spec.summary,
        trusted=TRUSTED.issuperset(spec.proposers),
        proposer=made[0] if len(made) == 1 else RotationProposer(made, turns),
        model=model_endpoint(spec.model, os.environ).model if "agent" in spec.proposers else None,
    )


def read_spec(path: Path) -> ScaffoldSpec:
    """Raises `UsageError` with the file and what is wrong in it."""
    try:
        return ScaffoldSpec.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"no scaffold at {path.parent}: {path.name} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {key}: {first['msg']}") from error


def templates_of(spec: ScaffoldSpec) -> list[str]:
    return ["system.md", *spec.agent.steps, "repair.md"]


def prompts_of(spec: ScaffoldSpec, folder: Path, common: Path) -> Prompts:
    """Raises `UsageError` when a template is nowhere."""
    prompts = Prompts(folder=folder, common=common)
    missing = [name for name in templates_of(spec) if not prompts.has(name)]
    if missing:
        raise UsageError(f"the scaffold {folder} lacks {', '.join(missing)}")
    return prompts


def model_endpoint(spec: ModelSpec, environment: Mapping[str, str]) -> Endpoint:
    """Where to ask, and with which key. Raises `UsageError` when OpenAI's own server would be asked without one."""
    base_url = environment.get("OPENAI_BASE_URL") or spec.base_url
    key = environment.get(spec.key_variable, "")
    if not key and base_url is None:
        raise UsageError(
            f"no key for the model: set {spec.key_variable}, or OPENAI_BASE_URL for a server of your own; "
            "without a model: --scaffold offline"
        )
    return Endpoint(
        model=environment.get("AGENTGOLF_MODEL") or spec.name,
        api_key=key or NO_KEY,
        base_url=base_url,
        wire=spec.wire or ("chat" if base_url else "responses"),
        reasoning_effort=spec.reasoning_effort,
        temperature=spec.temperature,
        max_output_tokens=spec.max_output_tokens,
        timeout_seconds=spec.timeout_seconds,
    )


def _proposer(
    kind: Kind, spec: ScaffoldSpec, folder: Path, playbook: Path, common: Path, note: Callable[[str], None]
) -> Proposer:
    if kind == "tuner":
        return TunerProposer()
    if kind == "scripted":
        return ScriptedProposer(folder / spec.script)
    catalogue = load_catalogue(playbook)
    if kind == "playbook":
        return PlaybookProposer(catalogue)
    return AgentProposer(
        Model(model_endpoint(spec.model, os.environ), note),
        prompts_of(spec, folder, common),
        catalogue,
        steps=spec.agent.steps,
        repairs=spec.agent.repairs,
        fallback=RotationProposer([PlaybookProposer(catalogue), TunerProposer()], [2, 1]),
        note=note,
    )
