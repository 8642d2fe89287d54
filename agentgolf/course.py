"""Reads course.toml: which files may be edited, the limits of each track, how it is scored."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agentgolf.domain import Clock
from agentgolf.errors import CourseError

COURSE_FILE = "course.toml"
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(_Strict):
    """Where the text comes from. `file` lies inside `package`, or beside course.toml without one.

    `format`: `jsonl` ({"text": ...} a line), `lines` (a document a line), or `pythonbible` (the
    generated module of a pythonbible-* package; a chapter is a document).
    """

    package: str | None = None
    version: str | None = None
    file: str
    sha256: Sha256
    format: Literal["jsonl", "lines", "pythonbible"]
    heldout_a_documents: Count
    heldout_b_documents: Count


class ShardsSpec(_Strict):
    """Tokenized text of a course whose script scores itself, in shards of the real challenge's format.

    Paths lie beside course.toml. A training sees the `train` shards and one held-out shard, under the name
    `shown_as`. `token_bytes` is a JSON list: how many bytes of text each token id stands for. A script
    may leave up to `tail_tokens` of the held-out shard unscored. `sha256` covers all these files.
    """

    train: Annotated[tuple[str, ...], Field(min_length=1)]
    heldout_a: str
    heldout_b: str
    shown_as: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    token_bytes: str
    tail_tokens: Annotated[int, Field(ge=0)] = 4096
    sha256: Sha256


class ReportSpec(_Strict):
    """Where a script that scores itself says what: regular expressions with one group; the last match counts."""

    val_bpb: str
    val_loss: str
    artifact_bytes: str

    @field_validator("val_bpb", "val_loss", "artifact_bytes")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from error
        if groups != 1:
            raise ValueError("must have exactly one group, around the number")
        return pattern


class DecisionSpec(_Strict):
    """When a candidate is kept. `looks` are the replicates after which the test is read.

    `min_gain_bpb` is above zero, since what could be faked must be bounded below it.
    """

    min_gain_bpb: Positive = 0.002
    level: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    looks: tuple[Count, ...] = (1, 3, 5)
    baseline_replicates: Annotated[int, Field(ge=2)] = 4
    final_replicates: Annotated[int, Field(ge=2)] = 3

    @model_validator(mode="after")
    def _looks_grow(self) -> "DecisionSpec":
        if list(self.looks) != sorted(set(self.looks)) or not self.looks or self.looks[-1] < 2:
            raise ValueError("looks must grow and end at 2 or more, such as [1, 3, 5]")
        return self


class TrackSpec(_Strict):
    """The limits of one track; each track has its own baseline and board."""

    summary: str = ""
    clock: Clock
    train_seconds: Positive
    grace_seconds: Positive
    eval_seconds: Positive
    artifact_cap_bytes: Count
    code_bytes: Literal["raw", "zstd"] = "raw"
    parameter_cap: Count | None = None
    training_text_in_artifact: bool = True
    memory_bytes: Count = 4_000_000_000
    scratch_bytes: Count = 1_000_000_000
    threads: Count = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    baseline: str | None = None


class CourseSpec(_Strict):
    """course.toml, as written."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")]
    summary: str = ""
    repo: str = "."
    editable: Annotated[tuple[str, ...], Field(min_length=1)]
    counted: Annotated[tuple[str, ...], Field(min_length=1)]
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    predictor: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "train_gpt"
    scorer: Literal["predictor", "self_reported"] = "predictor"
    image: str
    playbook: str | None = None
    default_track: str
    data: DataSpec | None = None
    shards: ShardsSpec | None = None
    report: ReportSpec | None = None
    decision: DecisionSpec = DecisionSpec()
    env: dict[str, str] = {}
    tracks: Annotated[dict[str, TrackSpec], Field(min_length=1)]

    @model_validator(mode="after")
    def _text_suits_scorer(self) -> "CourseSpec":
        if self.scorer == "predictor" and self.data is None:
            raise ValueError("a course whose scorer is predictor needs [data]")
        if self.scorer == "self_reported" and (self.shards is None or self.report is None):
            raise ValueError("a course whose scorer is self_reported needs [shards] and [report]")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One track of a course, ready to play. `sha256` covers course.toml and every file of the repo."""

    name: str
    track: str
    folder: Path
    spec: CourseSpec
    limits: TrackSpec
    sha256: str

    @property
    def repo(self) -> Path:
        return (self.folder / self.spec.repo).resolve()

    def is_editable(self, path: str) -> bool:
        return matches(path, self.spec.editable)

    def to_json(self) -> str:
        """The frozen course as the ledger keeps it."""
        return json.dumps({"track": self.track, "spec": self.spec.model_dump(mode="json")}, sort_keys=True)


def matches(path: str, globs: tuple[str, ...]) -> bool:
    """Whether a relative path matches one of the globs (`*` stays inside a folder)."""
    parts = PurePosixPath(path)
    return any(len(parts.parts) == len(PurePosixPath(glob).parts) and parts.match(glob) for glob in globs)


def repo_files(repo: Path) -> list[str]:
    """The repo's files as sorted relative paths, version control and caches left out."""
    skipped = {".git", "__pycache__", ".venv", "runs"}
    return sorted(
        p.relative_to(repo).as_posix()
        for p in repo.rglob("*")
        if p.is_file() and not p.is_symlink() and not skipped & set(p.relative_to(repo).parts)
    )


def load_course(folder: Path, track: str | None = None) -> Course:
    """Read and check a course folder.

    Raises `CourseError`, with file, line and what was expected, when anything is wrong.
    """
    path = folder / COURSE_FILE
    if not path.is_file():
        raise CourseError(
            f"no course at {folder}: it has no {COURSE_FILE}; `agentgolf init DIR` makes a course to start from"
        )
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CourseError(f"{path}: not valid TOML: {error}") from error
    try:
        spec = CourseSpec.model_validate(raw)
    except ValidationError as error:
        raise CourseError(_explain(path, text, error)) from error
    name = track or spec.default_track
    if name not in spec.tracks:
        line = "" if track else f"{path}:{_line_of(text, ('default_track',))}: "
        raise CourseError(
            f"{line}the course {spec.name!r} has no track {name!r}; its tracks are {', '.join(spec.tracks)}"
        )
    repo = (folder / spec.repo).resolve()
    if not repo.is_dir():
        line_number = _line_of(text, ("repo",))
        raise CourseError(f"{path}:{line_number}: repo = {spec.repo!r} is not a folder beside {COURSE_FILE}")
    files = repo_files(repo)
    for key in ("editable", "counted"):
        for glob in getattr(spec, key):
            if not any(matches(file, (glob,)) for file in files):
                raise CourseError(
                    f"{path}:{_line_of(text, (key,))}: {key} has {glob!r}, which matches no file in {repo}; "
                    "name a file that exists"
                )
    if spec.data is not None and spec.data.package is None and (folder / spec.data.file).resolve().is_relative_to(repo):
        raise CourseError(
            f"{path}:{_line_of(text, ('data', 'file'))}: the text {spec.data.file!r} lies inside the repo, where every "
            "candidate could read what is held out; move it beside the repo"
        )
    digest = hashlib.sha256(text.encode())
    for file in files:
        digest.update(file.encode() + b"\0" + (repo / file).read_bytes())
    if patch := spec.tracks[name].baseline:
        digest.update(_sibling(folder, patch, path, text).read_bytes())
    return Course(
        name=spec.name,
        track=name,
        folder=folder.resolve(),
        spec=spec,
        limits=spec.tracks[name],
        sha256=digest.hexdigest(),
    )


def _sibling(folder: Path, name: str, path: Path, text: str) -> Path:
    file = folder / name
    if not file.is_file():
        raise CourseError(f"{path}:{_line_of(text, ('baseline',))}: baseline = {name!r} is not a file there")
    return file


def _explain(path: Path, text: str, error: ValidationError) -> str:
    """The first thing wrong in course.toml, as file:line: key: what was expected."""
    first = error.errors()[0]
    keys = tuple(str(part) for part in first["loc"] if not isinstance(part, int))
    more = f" ({error.error_count() - 1} more after it)" if error.error_count() > 1 else ""
    said = str(first["msg"])
    if first["type"] == "missing":
        said = "is missing and must be given"
    elif first["type"] == "extra_forbidden":
        said = "is not a key that a course has"
    else:
        said = f"{said[0].lower()}{said[1:]}, got {_short(first.get('input'))}"
    return f"{path}:{_line_of(text, keys)}: {'.'.join(keys)}: {said}{more}"


def _short(value: Any) -> str:
    shown = repr(dict(value) if isinstance(value, Mapping) else value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _line_of(text: str, keys: tuple[str, ...]) -> int:
    """The line where a dotted key (or, when it is missing, its table) stands; 1 when neither does."""
    table, found = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([^\]]+)\]", line)
        if header:
            table = header[1].strip()
            if table == ".".join(keys[: table.count(".") + 1]):
                found = number
        key = re.match(r"\s*([\w-]+)\s*=", line)
        if key and ".".join(filter(None, (table, key[1]))) == ".".join(keys):
            return number
    return found
