"""Finds the numeric hyperparameters of a Python file, by its syntax tree.

A hyperparameter is a module-level assignment of one number to an upper-case name. A comment on its line,
`# tune LOW HIGH [log]`, sets its range; `# tune no` takes it out. Without one the range is half to twice the
value, logarithmic; for a fraction above a half, such as a decay of 0.95, half to twice its distance to 1.
"""

import ast
import re
from dataclasses import dataclass

_TUNE = re.compile(r"#\s*tune\s+(no|[-+.\deE]+\s+[-+.\deE]+(?:\s+log)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One number in a file: columns are those of the number itself, in bytes of its line (from 1)."""

    name: str
    value: float
    is_int: bool
    low: float
    high: float
    log: bool
    line: int
    start: int
    end: int


def find_constants(source: str) -> list[Constant]:
    """In the order of the file; empty when the file does not parse."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return []
    found, lines = [], source.splitlines()
    for statement in body:
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            continue
        target, value = statement.targets[0], statement.value
        if not isinstance(target, ast.Name) or not target.id.isupper() or not isinstance(value, ast.Constant):
            continue
        number = value.value
        if isinstance(number, bool) or not isinstance(number, int | float) or value.lineno != value.end_lineno:
            continue
        asked = _TUNE.search(lines[value.lineno - 1])
        if (asked and asked[1] == "no") or (not asked and number <= 0):
            continue
        is_int = isinstance(number, int)
        low, high, log = _range(asked[1] if asked else "", float(number), is_int)
        if is_int:
            low, high = round(low), round(high)
        if low < high:
            found.append(
                Constant(
                    name=target.id,
                    value=float(number),
                    is_int=is_int,
                    low=low,
                    high=high,
                    log=log and low > 0,
                    line=value.lineno,
                    start=value.col_offset,
                    end=value.end_col_offset or 0,
                )
            )
    return found


def _range(asked: str, value: float, is_int: bool) -> tuple[float, float, bool]:
    if not asked and not is_int and 0.5 < value < 1:
        return 1 - 2 * (1 - value), 1 - (1 - value) / 2, False
    if not asked:
        return value / 2, value * 2, True
    words = asked.split()
    return float(words[0]), float(words[1]), "log" in words[2:]


def replace_constants(source: str, new: dict[str, float]) -> str:
    """The source with other numbers for the named constants; everything else stays byte for byte."""
    lines = source.splitlines(keepends=True)
    for constant in find_constants(source):
        if constant.name in new:
            text = format_number(new[constant.name], constant.is_int)
            raw = lines[constant.line - 1].encode()
            lines[constant.line - 1] = (raw[: constant.start] + text.encode() + raw[constant.end :]).decode()
    return "".join(lines)


def format_number(value: float, is_int: bool) -> str:
    """Three significant digits: more would be noise."""
    if is_int:
        return str(round(value))
    text = repr(float(f"{value:.3g}"))
    return text if "." in text or "e" in text else f"{text}.0"
