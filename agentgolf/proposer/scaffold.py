"""Reads a scaffold: a folder with scaffold.toml that says which proposer works, and how."""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentgolf.errors import UsageError
from agentgolf.proposer.agent import AgentProposer, Manner
from agentgolf.proposer.base import AgentTask, Proposer
from agentgolf.proposer.catalogue import load_catalogue
from agentgolf.proposer.command import CommandProposer
from agentgolf.proposer.independent import IndependentProposer
from agentgolf.proposer.keys import take
from agentgolf.proposer.llm import Model
from agentgolf.proposer.playbook import PlaybookProposer
from agentgolf.proposer.prompts import Prompts
from agentgolf.proposer.rotation import RotationProposer
from agentgolf.proposer.scripted import ScriptedProposer
from agentgolf.proposer.tuner import TunerProposer
from agentgolf.proposer.wire import Endpoint

SCAFFOLD_FILE = "scaffold.toml"
Kind = Literal["playbook", "tuner", "iid", "scripted", "agent", "command"]
# As in decide/policy.py.
Policy = Literal["incumbent", "baseline"]
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
    reply_seconds: float = Field(default=1200.0, gt=0)


class AgentSpec(BaseModel):
    """How an agent works; see `Manner`."""

    model_config = ConfigDict(extra="forbid")

    steps: list[str] = Field(default=["task.md"], min_length=1)
    repairs: int = Field(default=2, ge=0, le=10)
    structured: bool = False
    tools: bool = False
    turns: int = Field(default=16, ge=1, le=200)
    smoke_tests: int = Field(default=2, ge=0, le=20)
    smoke_seconds: float = Field(default=5.0, gt=0, le=600)
    crash_repairs: int = Field(default=1, ge=0, le=10)
    lessons: bool = True


class CommandSpec(BaseModel):
    """A coding agent's command line; see `AgentTask`. In `argv`, {prompt}, {task} and {max_cost} are filled in."""

    model_config = ConfigDict(extra="forbid")

    argv: list[str] = []
    seconds: float = Field(default=900.0, gt=0)
    environment: list[str] = []
    variables: dict[str, str] = {}
    readable: list[str] = []
    network: bool = True
    image: str = ""
    cost_pattern: str = ""
    max_cost_usd: float | None = Field(default=None, ge=0)


class ScaffoldSpec(BaseModel):
    """scaffold.toml. With several proposers, `turns` says how many proposals each makes in a row.

    `policy`: where each candidate starts, at the incumbent or always at the baseline. `ahead`: a proposer that
    waits for a model works on the next proposal while a trial is measured.
    """

    model_config = ConfigDict(extra="forbid")

    summary: str
    proposers: list[Kind] = Field(min_length=1)
    turns: list[int] = []
    script: str = ""
    policy: Policy = "incumbent"
    ahead: bool = True
    model: ModelSpec = ModelSpec()
    agent: AgentSpec = AgentSpec()
    command: CommandSpec = CommandSpec()


TRUSTED: frozenset[Kind] = frozenset(("playbook", "tuner", "iid"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """`trusted`: all that it can propose comes from agentgolf's own offline proposers. `model`: its name, if any.

    `learner`: the agent among its proposers. `slow`: it waits for a model. `ahead`: it works on while trials
    are measured.
    """

    name: str
    summary: str
    trusted: bool
    proposer: Proposer
    policy: Policy = "incumbent"
    model: str | None = None
    learner: AgentProposer | None = None
    slow: bool = False
    ahead: bool = True


def load_scaffold(
    folder: Path,
    playbook: Path,
    common: Path,
    note: Callable[[str], None] = lambda _: None,
    *,
    needs_key: bool = True,
) -> Scaffold:
    """`common` has the templates that a scaffold's own folder may lack. Without `needs_key` no model is asked.

    Raises `UsageError` when the folder has no valid scaffold.toml, or its model no key.
    """
    path = folder / SCAFFOLD_FILE
    spec = read_spec(path)
    endpoint = None
    if "agent" in spec.proposers:
        endpoint = model_endpoint(spec.model, os.environ, needs_key=needs_key)
    made = [_proposer(kind, spec, folder, playbook, common, note, endpoint) for kind in spec.proposers]
    turns = spec.turns or [1] * len(made)
    if len(turns) != len(made) or min(turns) < 1:
        raise UsageError(f"{path}: turns needs one number of at least 1 for each proposer")
    return Scaffold(
        name=folder.name,
        summary=spec.summary,
        trusted=TRUSTED.issuperset(spec.proposers),
        proposer=made[0] if len(made) == 1 else RotationProposer(made, turns),
        policy=spec.policy,
        model=endpoint.model if endpoint else None,
        learner=next((one for one in made if isinstance(one, AgentProposer)), None),
        slow=not {"agent", "command"}.isdisjoint(spec.proposers),
        ahead=spec.ahead,
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
    """Those that its proposers render."""
    agent = ["system.md", *spec.agent.steps, "crash.md", "repair.md", "edit.md"]
    agent += ["nudge.md"] if spec.agent.tools else []
    lesson = ["lesson.md"] if spec.agent.lessons else []
    return (agent + lesson if "agent" in spec.proposers else []) + (
        ["command.md"] if "command" in spec.proposers else []
    )


def prompts_of(spec: ScaffoldSpec, folder: Path, common: Path) -> Prompts:
    """Raises `UsageError` when a template is nowhere."""
    prompts = Prompts(folder=folder, common=common)
    missing = [name for name in templates_of(spec) if not prompts.has(name)]
    if missing:
        raise UsageError(f"the scaffold {folder} lacks {', '.join(missing)}")
    return prompts


def model_endpoint(spec: ModelSpec, environment: Mapping[str, str], *, needs_key: bool = True) -> Endpoint:
    """Where to ask, and with which key. Raises `UsageError` when OpenAI's own server would be asked without one."""
    base_url = environment.get("OPENAI_BASE_URL") or spec.base_url
    key = take(spec.key_variable) or ""
    if not key and base_url is None and needs_key:
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
        reply_seconds=spec.reply_seconds,
    )


def _proposer(
    kind: Kind,
    spec: ScaffoldSpec,
    folder: Path,
    playbook: Path,
    common: Path,
    note: Callable[[str], None],
    endpoint: Endpoint | None,
) -> Proposer:
    if kind == "tuner":
        return TunerProposer()
    if kind == "scripted":
        return ScriptedProposer(folder / spec.script)
    catalogue = load_catalogue(playbook)
    if kind == "playbook":
        return PlaybookProposer(catalogue)
    if kind == "iid":
        return IndependentProposer(catalogue)
    prompts = prompts_of(spec, folder, common)
    if kind == "command":
        return CommandProposer(prompts, AgentTask(prompt="", **_command(spec.command, folder)))
    assert endpoint is not None
    return AgentProposer(
        Model(endpoint, note),
        prompts,
        catalogue,
        Manner(**spec.agent.model_dump()),
        fallback=RotationProposer([PlaybookProposer(catalogue), TunerProposer()], [2, 1]),
        note=note,
    )


def _command(spec: CommandSpec, folder: Path) -> dict[str, Any]:
    """Raises `UsageError` when there is no command line, or its pattern is none."""
    if not spec.argv:
        raise UsageError(f"{folder / SCAFFOLD_FILE}: command.argv is missing: the agent's command line, word by word")
    if spec.max_cost_usd is None and any("{max_cost}" in word for word in spec.argv):
        raise UsageError(f"{folder / SCAFFOLD_FILE}: command.argv has {{max_cost}}, so command.max_cost_usd is needed")
    try:
        re.compile(spec.cost_pattern)
    except re.error as error:
        raise UsageError(f"{folder / SCAFFOLD_FILE}: command.cost_pattern is no pattern: {error}") from error
    given = spec.model_dump()
    return {**given, **{key: tuple(given[key]) for key in ("argv", "environment", "readable")}}
