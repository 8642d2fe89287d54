"""Turns what SQLite and the disk raise into one sentence."""

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from agentgolf.errors import DiskFullError, LedgerBusyError, LedgerError


@contextlib.contextmanager
def ledger_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk raise into one sentence."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise LedgerBusyError(f"another program holds {path} locked; close it, then: agentgolf resume") from error
        if "full" in text or "disk I/O" in text:
            raise DiskFullError(
                f"the disk of {path.parent} is full; free some space, then: agentgolf resume"
            ) from error
        raise LedgerError(f"the ledger {path} cannot be used: {text}") from error
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"the ledger {path} cannot be used: {error}") from error
    except OSError as error:
        if known := disk_error(error):
            raise known from error
        if isinstance(error, PermissionError):
            raise LedgerError(f"{path.parent} cannot be written: {error.strerror}") from error
        raise


def disk_error(error: OSError) -> DiskFullError | None:
    """The sentence for a full disk; None for any other trouble."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    where = f" ({error.filename})" if error.filename else ""
    return DiskFullError(f"the disk is full{where}; free some space, then: agentgolf resume")
