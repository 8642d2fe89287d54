"""Applies what a language model wrote as an edit: blocks, a unified diff, whole definitions or a whole file.

Each piece must fit one place: exactly, or else but for white space and indentation, which are then repaired.
What fits nowhere, or twice, is refused with the nearest miss, for the model to read.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentgolf.errors import NoEditError, PatchError
from agentgolf.proposer.definitions import put_definitions

# Whatever the markers are called: some models write them as git writes a conflict. Every part ends at the next marker,
# or a reply of markers alone would take for ever; so does a fence.
_BLOCK = re.compile(
    r"^<{5,9}[^\n]*\n(?P<old>(?:(?!<{5,9}|={5,9}\s*$)[^\n]*\n)*)"
    r"={5,9}[ \t]*\n(?P<new>(?:(?![<>]{5,9})[^\n]*\n)*)>{5,9}",
    re.MULTILINE,
)
_FENCE = re.compile(
    r"^(?P<ticks>`{3,})(?P<info>[^\n`]*)\n(?P<body>(?:(?!(?P=ticks))[^\n]*\n)*)(?P=ticks)[ \t]*$", re.MULTILINE
)
_HUNK = re.compile(r"^@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@")
# A fenced block is taken for the whole file when it has at least this part of its lines.
WHOLE_FILE_SHARE = 0.5
MISS_LINES = 12
MAX_REPLY_BYTES = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some lines of a file and what stands there instead; `line` is where a diff says that they are, or 0."""

    path: str
    old: str
    new: str
    line: int = 0


def apply_reply(text: str, files: Mapping[str, str]) -> dict[str, str]:
    """The files after the edit in a model's reply, changed or not.

    Raises `NoEditError` when there is no edit in it, `PatchError` when a piece does not fit or nothing changes.
    """
    if len(text) > MAX_REPLY_BYTES:
        raise PatchError(f"the reply has more than {MAX_REPLY_BYTES:,} characters; send only what changes")
    pieces = _blocks(text, files) or _hunks(text, files)
    if pieces:
        return apply_pieces(pieces, files)
    fenced = _fenced(text, files)
    if not fenced:
        raise NoEditError(
            "the reply has no edit: write <<<<<<< SEARCH / ======= / >>>>>>> REPLACE blocks, a unified diff, or whole "
            "functions, classes or the whole file in a fenced block"
        )
    return _changed({**files, **fenced}, files)


def apply_pieces(pieces: Sequence[Piece], files: Mapping[str, str]) -> dict[str, str]:
    """The files with every piece replaced, in order. Raises `PatchError` when one does not fit or nothing changes."""
    changed = dict(files)
    for piece in pieces:
        path = _path(piece.path, files)
        changed[path] = fit(changed[path], piece)
    return _changed(changed, files)


def _changed(new: dict[str, str], files: Mapping[str, str]) -> dict[str, str]:
    if new == dict(files):
        raise PatchError("the edit changes nothing: what it puts in is what stood there")
    return new


def fit(source: str, piece: Piece) -> str:
    """The source with one piece replaced. Raises `PatchError` with the nearest miss."""
    if not piece.old.strip():
        if source.strip():
            raise PatchError(f"{piece.path}: a block searches for nothing; quote the lines that it replaces")
        return piece.new
    lines, old = source.splitlines(keepends=True), piece.old.splitlines(keepends=True)
    exact = [at for at in range(len(lines) - len(old) + 1) if _same(lines[at : at + len(old)], old)]
    if exact:
        at = _only(exact, piece)
        return "".join([*lines[:at], *_ended(piece.new), *lines[at + len(old) :]])
    wanted = [line.strip() for line in old if line.strip()]
    loose = [found for at in range(len(lines)) if (found := _loose(lines, at, wanted))]
    if loose:
        start = _only([first for first, _ in loose], piece)
        end = dict(loose)[start]
        new = _reindented(_ended(piece.new), old, lines[start:end])
        return "".join([*lines[:start], *new, *lines[end:]])
    raise PatchError(f"{piece.path}: these lines are not there:\n{_quoted(old)}\n{_nearest(lines, old)}")


def _blocks(text: str, files: Mapping[str, str]) -> list[Piece]:
    pieces = []
    for block in _BLOCK.finditer(text):
        above = text[: block.start()].rstrip("`\n ").rpartition("\n")[2].strip().strip("`*#: ")
        pieces.append(Piece(path=above, old=block["old"], new=block["new"]))
    return pieces


def _hunks(text: str, files: Mapping[str, str]) -> list[Piece]:
    """A unified diff's hunks as pieces, whatever their line counts say."""
    pieces: list[Piece] = []
    path, old, new, line, inside = "", [""], [""], 0, False

    def close() -> None:
        if inside and (old or new):
            pieces.append(Piece(path=path, old="".join(old), new="".join(new), line=line))

    for row in text.splitlines(keepends=True):
        head = _HUNK.match(row)
        if row.startswith("+++ "):
            path = row[4:].split("\t")[0].strip().removeprefix("b/")
        elif head:
            close()
            old, new, line, inside = [], [], int(head[1]), True
        elif inside and row[:1] in " -+" and not row.startswith(("--- ", "```")):
            if row[0] in " -":
                old.append(row[1:])
            if row[0] in " +":
                new.append(row[1:])
        elif inside and row.strip() == "":
            old.append("\n")
            new.append("\n")
        elif inside and not row.startswith("\\"):
            close()
            inside = False
    close()
    return [piece for piece in pieces if piece.old != piece.new]


def _fenced(text: str, files: Mapping[str, str]) -> dict[str, str]:
    """The files that fenced blocks give: whole ones, or with definitions put into the only one that has such names."""
    found: dict[str, str] = {}
    # Constants alone may be an example in a text, but not below a hypothesis.
    named = "HYPOTHESIS" in text.upper()
    for fence in _FENCE.finditer(text):
        body = fence["body"]
        where = next((path for path in files if path in fence["info"] or path in body.split("\n", 1)[0]), None)
        path = where or (next(iter(files)) if len(files) == 1 else None)
        if path is not None and body.count("\n") >= WHOLE_FILE_SHARE * files[path].count("\n"):
            found[path] = body
            continue
        put = {
            one: new
            for one in ([path] if path else files)
            if one.endswith(".py") and (new := put_definitions(found.get(one, files[one]), body, named)) is not None
        }
        if len(put) > 1:
            raise PatchError(f"what the block defines stands in {' and '.join(put)}; name the file after the ```")
        found |= put
    return found


def _path(named: str, files: Mapping[str, str]) -> str:
    known = [path for path in files if named == path or named.endswith(f"/{path}")]
    if known:
        return known[0]
    if len(files) == 1:
        return next(iter(files))
    raise PatchError(f"{named!r} is none of the files that may be edited: {', '.join(files)}")


def _same(lines: list[str], old: list[str]) -> bool:
    return [line.rstrip("\n") for line in lines] == [line.rstrip("\n") for line in old]


def _loose(lines: list[str], start: int, wanted: list[str]) -> tuple[int, int] | None:
    """Where lines equal to the wanted ones but for white space begin and end, blank lines not counted."""
    if not lines[start].strip():
        return None
    at = start
    for want in wanted:
        while at < len(lines) and not lines[at].strip():
            at += 1
        if at >= len(lines) or " ".join(lines[at].split()) != " ".join(want.split()):
            return None
        at += 1
    return start, at


def _only(found: list[int], piece: Piece) -> int:
    """The one place; of several, the one nearest to where the diff says."""
    if len(found) == 1:
        return found[0]
    if piece.line:
        return min(found, key=lambda at: abs(at + 1 - piece.line))
    where = ", ".join(str(at + 1) for at in found[:5])
    raise PatchError(f"{piece.path}: these lines stand at {len(found)} places (lines {where}); quote more around them")


def _ended(text: str) -> list[str]:
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return lines


def _indent(lines: list[str]) -> str:
    first = next((line for line in lines if line.strip()), "")
    return first[: len(first) - len(first.lstrip())]


def _reindented(new: list[str], old: list[str], there: list[str]) -> list[str]:
    """The new lines, moved by as much as the old ones were off."""
    said, real = _indent(old), _indent(there)
    if said == real:
        return new
    moved = []
    for line in new:
        if line.strip() and line.startswith(said):
            line = real + line[len(said) :]
        moved.append(line)
    return moved


def _quoted(lines: list[str]) -> str:
    shown = [f"| {line.rstrip()}" for line in lines[:MISS_LINES]]
    return "\n".join(shown + ([f"| ... {len(lines) - MISS_LINES} more"] if len(lines) > MISS_LINES else []))


def _nearest(lines: list[str], old: list[str]) -> str:
    """The part of the file that is most like the lines that were not found."""
    best, score = 0, 0.0
    text = "".join(old)
    for at in range(max(1, len(lines) - len(old) + 1)):
        matcher = difflib.SequenceMatcher(None, "".join(lines[at : at + len(old)]), text, autojunk=False)
        if matcher.real_quick_ratio() > score and matcher.quick_ratio() > score:
            ratio = matcher.ratio()
            if ratio > score:
                best, score = at, ratio
    if score < 0.3:
        return "nothing in the file is like them"
    return f"the nearest are, from line {best + 1}:\n{_quoted(lines[best : best + len(old)])}"
