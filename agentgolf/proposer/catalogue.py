"""Reads the playbook: one Markdown file a technique, its diff in the last fenced block."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from agentgolf.errors import UsageError

_PAGE = re.compile(r"\A\+\+\+\n(?P<head>.*?)\n\+\+\+\n(?P<body>.*)```diff\n(?P<diff>.*?)```\s*\Z", re.DOTALL)


class _Head(BaseModel):
    """`order` is the turn; `bytes` says whether it frees or costs artifact bytes, or neither."""

    model_config = ConfigDict(extra="forbid")

    title: str
    order: int
    bytes: str = "neither"


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    """One page: its name (the file's), what it says, and its diff against the unmodified course."""

    name: str
    title: str
    order: int
    bytes: str
    body: str
    diff: str


def load_catalogue(folder: Path) -> list[Technique]:
    """In the order of their turns. Raises `UsageError` when a page is malformed or there is none."""
    techniques = []
    for path in sorted(folder.glob("*.md")):
        page = _PAGE.match(path.read_text(encoding="utf-8"))
        if page is None:
            raise UsageError(f"{path}: a technique needs a +++ head, a text and, last, a ```diff block")
        try:
            head = _Head.model_validate(tomllib.loads(page["head"]))
        except (ValidationError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path}: its head is wrong: {str(error).splitlines()[0]}") from error
        techniques.append(
            Technique(
                name=path.stem,
                title=head.title,
                order=head.order,
                bytes=head.bytes,
                body=page["body"].strip(),
                diff=page["diff"],
            )
        )
    if not techniques:
        raise UsageError(f"{folder} has no technique in it")
    return sorted(techniques, key=lambda technique: (technique.order, technique.name))
