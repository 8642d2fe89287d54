"""How much of a run's budget is spent, over all the processes that ever worked on it."""

import math
import time

from agentgolf.ledger.lineage import spent_seconds
from agentgolf.ledger.store import Ledger

HEARTBEAT_SECONDS = 2.0


class Budget:
    """Wall seconds. The ledger learns every two seconds what this process has spent."""

    def __init__(self, ledger: Ledger, run_id: int, total_seconds: float | None) -> None:
        self._ledger = ledger
        self.total_seconds = math.inf if total_seconds is None else total_seconds
        self._before = spent_seconds(ledger, run_id)
        self._started = self._beaten = time.monotonic()
        self._session = ledger.start_session(run_id)

    @property
    def spent_seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    @property
    def left_seconds(self) -> float:
        return self.total_seconds - self.spent_seconds

    def beat(self, force: bool = False) -> None:
        if force or time.monotonic() - self._beaten >= HEARTBEAT_SECONDS:
            self._beaten = time.monotonic()
            self._ledger.heartbeat(self._session, time.monotonic() - self._started)
