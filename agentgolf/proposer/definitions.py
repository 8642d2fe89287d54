"""Puts whole definitions into a Python file in place of those of the same name.

Many a model answers with one rewritten function and no word of where it goes; its name says where.
"""

import ast
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from agentgolf.errors import PatchError

# A line that stands for what was left out.
_ABRIDGED = re.compile(
    r"^\s*(\.\.\.\s*|#.*(\.\.\.|\b(unchanged|existing (code|methods)|same as before|(rest|remainder) of)\b).*)$",
    re.IGNORECASE,
)
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Import = ast.Import | ast.ImportFrom


@dataclass(frozen=True, slots=True, kw_only=True)
class _Splice:
    """Lines `start` up to `end` of the file, counted from 0, and what stands there instead."""

    start: int
    end: int
    text: str


def put_definitions(source: str, code: str, constants_alone: bool = False) -> str | None:
    """The source with every function, class and constant of `code` in place of its own of that name.

    A class that has only some of the file's methods replaces only those. What the file does not have is put before
    the first definition that it does. None when `code` is anything but definitions, or none of them is the file's;
    constants without a function or a class count only where `constants_alone` says so.
    Raises `PatchError` when a name stands at several places, or when parts of `code` are left out.
    """
    code = textwrap.dedent(code)
    try:
        given, there = ast.parse(code), ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not _defines(given.body, constants_alone):
        return None
    splices = _Merge(code, there.body).scope(given.body, there.body)
    if not splices:
        return None
    known = {line.strip() for line in source.splitlines()}
    left_out = [line.strip() for line in code.splitlines() if _ABRIDGED.match(line) and line.strip() not in known]
    if left_out:
        raise PatchError(f"parts are left out where it says {left_out[0][:80]!r}; write the definition whole")
    lines = source.splitlines(keepends=True)
    for splice in sorted(splices, key=lambda one: (one.start, one.end), reverse=True):
        lines[splice.start : splice.end] = [splice.text]
    return "".join(lines)


class _Merge:
    """Finds the place of each definition of `code` in a file whose statements are `file`."""

    def __init__(self, code: str, file: Sequence[ast.stmt]) -> None:
        self._lines, self._file = code.splitlines(keepends=True), file
        self._imported = {ast.unparse(node) for node in file if isinstance(node, _Import)}

    def scope(self, given: Sequence[ast.stmt], there: Sequence[ast.stmt]) -> list[_Splice]:
        """What to put where, so that `there` defines what `given` does; nothing when they have no name in common."""
        splices: list[_Splice] = []
        new: list[ast.stmt] = []
        # Of several definitions of one name the last counts, as when Python runs them.
        for node in {_names(node) or id(node): node for node in given}.values():
            own = self._own(node, there)
            if isinstance(node, ast.ClassDef) and isinstance(own, ast.ClassDef) and _methods(own) - _methods(node):
                splices += self.scope(node.body, own.body)
            elif own is not None:
                text = self._text(node, own.col_offset)
                splices.append(_Splice(start=_first(own), end=own.end_lineno or own.lineno, text=text))
            elif not _says_nothing(node) and ast.unparse(node) not in self._imported:
                new.append(node)
        if splices and new:
            start, indent = min(one.start for one in splices), there[0].col_offset
            text = "".join(self._text(node, indent) + self._gap(node, indent) for node in new)
            splices.append(_Splice(start=start, end=start, text=text))
        return splices

    def _own(self, node: ast.stmt, there: Sequence[ast.stmt]) -> ast.stmt | None:
        """What defines the same there; for a function alone, else the only method of its name in the file."""
        names = _names(node)
        same = [one for one in there if names and _names(one) == names]
        if not same and isinstance(node, _Function) and there is self._file:
            classes = [one for one in self._file if isinstance(one, ast.ClassDef)]
            same = [one for owner in classes for one in owner.body if _names(one) == names]
        if len(same) > 1:
            where = ", ".join(str(one.lineno) for one in same[:5])
            raise PatchError(
                f"{names[0]} is defined at {len(same)} places (lines {where}); write its class around it, or "
                "SEARCH/REPLACE blocks"
            )
        return same[0] if same else None

    def _text(self, node: ast.stmt, indent: int) -> str:
        """The node's own lines, indented as the file's are."""
        body = textwrap.dedent("".join(self._lines[_first(node) : node.end_lineno]))
        return textwrap.indent(body.rstrip("\n") + "\n", " " * indent)

    def _gap(self, node: ast.stmt, indent: int) -> str:
        if not isinstance(node, _Function | ast.ClassDef):
            return ""
        return "\n" if indent else "\n\n"


def _defines(body: Sequence[ast.stmt], constants_alone: bool) -> bool:
    """Whether it is definitions, with imports at most, and a function or a class among them where one is needed."""
    said = [node for node in body if not _says_nothing(node)]
    wanted = [node for node in said if constants_alone or isinstance(node, _Function | ast.ClassDef)]
    return bool(wanted) and all(_names(node) or isinstance(node, _Import) for node in said)


def _names(node: ast.stmt) -> tuple[str, ...]:
    """What a statement defines: a function, a class, or constants; nothing for any other."""
    if isinstance(node, _Function | ast.ClassDef):
        return (node.name,)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return tuple(names) if len(names) == len(targets) else ()


def _methods(node: ast.ClassDef) -> set[str]:
    return {one.name for one in node.body if isinstance(one, _Function)}


def _says_nothing(node: ast.stmt) -> bool:
    """A docstring, an ellipsis or a pass."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _first(node: ast.stmt) -> int:
    """The line where it begins, its decorators among it, counted from 0."""
    decorators = node.decorator_list if isinstance(node, _Function | ast.ClassDef) else []
    return min([node.lineno, *(one.lineno for one in decorators)]) - 1
