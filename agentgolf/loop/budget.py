"""How much of a run's budget is spent, over all the processes that ever worked on it."""

import math
import time

from agentgolf.course import Course
from agentgolf.domain import Clock
from agentgolf.ledger.lineage import spent_seconds
from agentgolf.ledger.store import Ledger

HEARTBEAT_SECONDS = 2.0


# Besides training: starting interpreters, scoring, and a core that is slower than the reference.
FIRST_GUESS_FACTOR, FIRST_GUESS_SECONDS = 1.3, 12.0


class Budget:
    """Wall seconds. The ledger learns every two seconds what this process has spent."""

    def __init__(self, ledger: Ledger, run_id: int, total_seconds: float | None) -> None:
        self._ledger = ledger
        self.total_seconds = math.inf if total_seconds is None else total_seconds
        self._before, self._here = spent_seconds(ledger, run_id), 0.0
        self._since: float | None = time.monotonic()
        self._beaten = time.monotonic()
        self._session = ledger.start_session(run_id)

    def pause(self) -> None:
        """Time goes on, but not for this run."""
        self._here, self._since = self._spent_here(), None
        self.beat(force=True)

    def go_on(self) -> None:
        self._since = time.monotonic()

    @property
    def spent_seconds(self) -> float:
        return self._before + self._spent_here()

    def _spent_here(self) -> float:
        return self._here + (time.monotonic() - self._since if self._since is not None else 0.0)

    @property
    def left_seconds(self) -> float:
        return self.total_seconds - self.spent_seconds

    def beat(self, force: bool = False) -> None:
        if force or time.monotonic() - self._beaten >= HEARTBEAT_SECONDS:
            self._beaten = time.monotonic()
            self._ledger.heartbeat(self._session, self._spent_here())


def first_guess(course: Course) -> float:
    """Seconds of one replicate, before any was measured."""
    factor = 1.0 if course.limits.clock is Clock.WALL else FIRST_GUESS_FACTOR
    return course.limits.train_seconds * factor + FIRST_GUESS_SECONDS
