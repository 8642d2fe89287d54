"""Where sandboxes run: which cores and GPUs there are, and how they are shared out."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agentgolf.domain import Slot
from agentgolf.errors import EnvironmentNotReadyError, UsageError

MAX_DEFAULT_JOBS = 4


def visible_gpus() -> list[str]:
    """UUIDs of the NVIDIA GPUs of this machine; none without the driver or `nvidia-ml-py`."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    finally:
        pynvml.nvmlShutdown()


def usable_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def plan_slots(
    *,
    threads: int,
    gpus: int,
    jobs: int | None,
    cores: Sequence[int] | None = None,
    find_gpus: Callable[[], list[str]] = visible_gpus,
) -> list[Slot]:
    """Share the machine out: `threads` cores and `gpus` GPUs a slot, `jobs` slots or as many as fit.

    Raises `EnvironmentNotReadyError` when not even one fits and `UsageError` when `jobs` do not.
    """
    cores = list(usable_cores() if cores is None else cores)
    devices = find_gpus() if gpus else []
    fits = min(len(cores) // threads, len(devices) // gpus if gpus else len(cores))
    if fits < 1:
        need = f"{gpus} GPUs and {len(devices)} are free" if gpus else f"{threads} cores and {len(cores)} are usable"
        hint = "; install the NVIDIA driver and `pip install agentgolf[gpu]`" if gpus else ""
        raise EnvironmentNotReadyError(f"one trial of this course needs {need}{hint}")
    if jobs is not None and jobs > fits:
        raise UsageError(f"--jobs {jobs} does not fit: this machine has room for {fits} at once")
    count = min(fits, MAX_DEFAULT_JOBS) if jobs is None else jobs
    return [
        Slot(
            cores=tuple(cores[i * threads : (i + 1) * threads]),
            gpus=tuple(devices[i * gpus : (i + 1) * gpus]),
        )
        for i in range(count)
    ]


@contextlib.contextmanager
def leased_slots(
    *,
    threads: int,
    gpus: int,
    jobs: int | None,
    cores: Sequence[int] | None = None,
    find_gpus: Callable[[], list[str]] = visible_gpus,
    folder: Path | None = None,
) -> Iterator[list[Slot]]:
    """Slots whose GPUs no other run on this machine has, for as long as the block lasts.

    A lease is a lock on a file in `folder` (the machine's temporary folder): it ends with its process,
    however that ends. Raises as `plan_slots`.
    """
    leases: dict[str, int] = {}
    try:
        for gpu in find_gpus() if gpus else []:
            handle = os.open(
                (folder or Path(tempfile.gettempdir())) / f"agentgolf-{gpu}.lease", os.O_RDWR | os.O_CREAT, 0o666
            )
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leases[gpu] = handle
            except BlockingIOError:
                os.close(handle)
        slots = plan_slots(threads=threads, gpus=gpus, jobs=jobs, cores=cores, find_gpus=lambda: list(leases))
        for gpu in set(leases) - {gpu for slot in slots for gpu in slot.gpus}:
            os.close(leases.pop(gpu))
        yield slots
    finally:
        for handle in leases.values():
            os.close(handle)
