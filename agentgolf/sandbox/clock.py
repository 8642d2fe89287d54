"""The course's clock: what a job has used of its budget, told to the job through a small file.

Three kinds (`domain.Clock`). On `reference`, CPU-seconds are weighted by how fast the core is just
then, measured by running a fixed piece of work on that same core (`meter.py`): a core slowed by its
neighbours gets more CPU-seconds for the same budget, so the number of training steps repeats.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from agentgolf.domain import Clock, Slot
from agentgolf.errors import EnvironmentNotReadyError

SAMPLE_SECONDS = 2.0
SPEED_BOUNDS = (0.1, 10.0)


class SpeedMeter:
    """A helper process that says how fast a core is now; 1.0 is the reference machine.

    It holds torch, which the orchestrator must not, and lives as long as the run.
    """

    def __init__(self) -> None:
        script = Path(__file__).with_name("meter.py")
        env = {"PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "2147483648"}
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._lock = threading.Lock()

    def speed(self, core: int) -> float:
        """Reference seconds that pass in one CPU-second on this core, about 25 ms of work.

        Raises `EnvironmentNotReadyError` when the helper has died.
        """
        with self._lock:
            try:
                assert self._process.stdin and self._process.stdout
                self._process.stdin.write(f"{core}\n")
                self._process.stdin.flush()
                return float(self._process.stdout.readline())
            except (OSError, ValueError) as error:
                raise EnvironmentNotReadyError(
                    "the speed meter stopped answering; check that `python -c 'import torch'` works"
                ) from error

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


class BudgetClock:
    """What one job has used of its budget.

    `page`, when given, is the file the job reads its clock from: two numbers, budget seconds used and
    budget seconds that pass in one second of CPU (or wall) time.
    """

    def __init__(self, kind: Clock, page: Path | None = None) -> None:
        self.kind, self.page = kind, page
        self.used_seconds = 0.0
        self.speed = 1.0
        self._cpu_seconds = 0.0
        self._started = time.monotonic()
        self._publish()

    def update(self, cpu_seconds: float) -> float:
        """Take the sandbox's total CPU-seconds; give the budget seconds used so far."""
        if self.kind is Clock.WALL:
            self.used_seconds = time.monotonic() - self._started
        else:
            self.used_seconds += max(0.0, cpu_seconds - self._cpu_seconds) * self.speed
            self._cpu_seconds = max(self._cpu_seconds, cpu_seconds)
        self._publish()
        return self.used_seconds

    def _publish(self) -> None:
        if self.page is not None:
            # One fixed-width write, so that a reader never sees half of it.
            text = f"{self.used_seconds:015.4f} {self.speed:010.6f}\n".encode()
            handle = os.open(self.page, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(handle, text, 0)
            finally:
                os.close(handle)


@contextlib.contextmanager
def metered(clock: BudgetClock, slot: Slot, meter: SpeedMeter | None) -> Iterator[None]:
    """Keep `clock.speed` fresh, from a thread, while the block runs."""
    if clock.kind is not Clock.REFERENCE or meter is None:
        yield
        return
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            with contextlib.suppress(EnvironmentNotReadyError):
                clock.speed = min(max(meter.speed(slot.cores[0]), SPEED_BOUNDS[0]), SPEED_BOUNDS[1])

    clock.speed = meter.speed(slot.cores[0])
    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
