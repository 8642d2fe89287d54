"""A scaffold's templates."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from agentgolf.errors import UsageError

_CLOSING = re.compile(r"<\s*/\s*(data)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """A scaffold's templates, rendered strictly: an unknown name in one is an error, not a blank.

    What the scaffold's folder lacks is taken from `common`. The filter `data` is for what a candidate may have
    written: it cannot close the <data> around it.
    """

    folder: Path
    common: Path

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file() or (self.common / name).is_file()

    def render(self, name: str, **values: Any) -> str:
        """Raises `UsageError` with the file and what is wrong in it."""
        try:
            return _environment(self.folder, self.common).get_template(name).render(**values).strip()
        except (TemplateError, UnicodeDecodeError) as error:
            line = f":{error.lineno}" if hasattr(error, "lineno") else ""
            place = getattr(error, "filename", None) or self.folder / name
            raise UsageError(f"{place}{line}: {error or type(error).__name__}") from error


@functools.lru_cache(maxsize=32)
def _environment(folder: Path, common: Path) -> Environment:
    """Compiling the templates anew for every prompt would take longer than all else; a changed file is seen."""
    made = Environment(
        loader=FileSystemLoader([folder, common]), undefined=StrictUndefined, trim_blocks=True, autoescape=False
    )
    made.filters["data"] = as_data
    return made


def as_data(text: object) -> str:
    """Text that cannot close the <data> around it."""
    return _CLOSING.sub(r"<\\/\1", str(text))
