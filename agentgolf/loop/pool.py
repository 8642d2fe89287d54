"""Work shared out over slots, each taken by one piece of work at a time."""

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agentgolf.domain import Slot

T = TypeVar("T")
R = TypeVar("R")


def on_slots(slots: Sequence[Slot], items: Sequence[T], work: Callable[[T, Slot], R]) -> list[R]:
    """The results in the order of the items. What `work` raises is raised again, when all that runs has ended."""
    free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
    for slot in slots:
        free.put(slot)

    def one(item: T) -> R:
        slot = free.get()
        try:
            return work(item, slot)
        finally:
            free.put(slot)

    with ThreadPoolExecutor(len(slots)) as pool:
        return list(pool.map(one, items))
