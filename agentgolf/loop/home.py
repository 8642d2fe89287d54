"""Where things are: the shipped courses and scaffolds, and the folders of a run."""

from pathlib import Path

from agentgolf.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped(kind: str) -> Path:
    """`sandboxes` or `prompts`: package data of an installed wheel, or the checkout's folder."""
    inside = _PACKAGE / "_data" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def find_course(name_or_folder: str) -> Path:
    """A folder of the user's, or a shipped course by its name. Raises `UsageError`."""
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    if (shipped("sandboxes") / name_or_folder).is_dir():
        return shipped("sandboxes") / name_or_folder
    raise UsageError(
        f"there is no course {name_or_folder!r}: neither a folder nor one of {', '.join(shipped_names('sandboxes'))}"
    )


def find_scaffold(name_or_folder: str) -> Path:
    """A folder of the user's, or a shipped scaffold by its name. Raises `UsageError`."""
    folder = Path(name_or_folder)
    if (folder / "scaffold.toml").is_file():
        return folder
    if (shipped("prompts") / name_or_folder / "scaffold.toml").is_file():
        return shipped("prompts") / name_or_folder
    raise UsageError(
        f"there is no scaffold {name_or_folder!r}: neither a folder nor one of {', '.join(shipped_names('prompts'))}"
    )


def shipped_names(kind: str) -> list[str]:
    marker = "course.toml" if kind == "sandboxes" else "scaffold.toml"
    return sorted(path.parent.name for path in shipped(kind).glob(f"*/{marker}"))


def is_shipped(folder: Path) -> bool:
    return shipped("sandboxes").resolve() in folder.resolve().parents


def require_new(folder: Path) -> None:
    """Raises `UsageError` when a folder to be made is there and not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty; choose a new folder")
