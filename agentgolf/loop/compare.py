"""Plays several scaffolds side by side: equal budgets, in blocks whose order is drawn, over one shared baseline."""

import contextlib
import dataclasses
import datetime
import random
import re
from collections.abc import Sequence
from pathlib import Path

from agentgolf.course import Course
from agentgolf.domain import RunState, Slot
from agentgolf.errors import UsageError
from agentgolf.ledger.comparisons import add_arm, arm_rows, finish_comparison, start_comparison
from agentgolf.ledger.lineage import trial_rows
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop.campaign import Campaign
from agentgolf.loop.crew import Crew
from agentgolf.loop.observer import Observer
from agentgolf.loop.plan import seed_for
from agentgolf.loop.session import RunRequest, create_run, open_campaign, open_scaffold
from agentgolf.sandbox.base import Sandbox


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """`run` is what every arm gets; its name and scaffold are not used."""

    run: RunRequest
    scaffolds: tuple[str, ...]
    repeats: int
    name: str | None


@dataclasses.dataclass(slots=True)
class Stopper:
    """Stops whichever campaign is playing, and keeps the others from going on."""

    crews: list[Crew] = dataclasses.field(default_factory=list)
    stopped: bool = False

    @property
    def asked_to_stop(self) -> bool:
        return self.stopped

    def stop(self) -> None:
        self.stopped = True
        for crew in self.crews:
            crew.stop()

    def stop_now(self) -> None:
        self.stopped = True
        for crew in self.crews:
            crew.stop_now()

    def watch(self, crew: Crew) -> None:
        self.crews.append(crew)
        if self.stopped:
            crew.stop()


def arm_names(scaffolds: Sequence[str]) -> list[str]:
    """A name for each arm; of a scaffold that plays against itself, the second is NAME-2. Raises `UsageError`."""
    names: list[str] = []
    for scaffold in scaffolds:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(scaffold).name).strip("-")
        count = sum(one == name or one.startswith(f"{name}-") for one in names) + 1
        names.append(name if count == 1 else f"{name}-{count}")
    if len(names) < 2:
        raise UsageError("give at least two scaffolds to compare; a scaffold may play against itself")
    return names


def create_comparison(ledger: Ledger, request: CompareRequest, course: Course, slots: list[Slot], box: Sandbox) -> Row:
    """Make every run of it. Raises `UsageError` on a taken name, an unknown scaffold or a tiny budget."""
    arms = arm_names(request.scaffolds)
    for scaffold in request.scaffolds:
        open_scaffold(scaffold, course)
    name = request.name or f"compare-{datetime.datetime.now():%m%d-%H%M%S}"
    seed = request.run.settings.seed
    rows = {
        (arm, repeat): create_run(
            ledger, _request(request, scaffold, f"{name}.{arm}.{repeat}", seed, index, repeat), course, slots, box
        )
        for repeat in range(1, request.repeats + 1)
        for index, (arm, scaffold) in enumerate(zip(arms, request.scaffolds, strict=True), 1)
    }
    alone = dataclasses.replace(
        request.run,
        settings=request.run.settings.model_copy(update={"scaffold": "offline"}),
        budget_seconds=None,
        trials=0,
        name=f"{name}.baseline",
    )
    baseline = create_run(ledger, alone, course, slots, box)
    comparison = start_comparison(ledger, name=name, seed=seed, repeats=request.repeats, baseline_run_id=baseline["id"])
    for (arm, repeat), row in rows.items():
        add_arm(ledger, comparison["id"], arm, repeat, row["id"])
    return comparison


def _request(request: CompareRequest, scaffold: str, name: str, seed: int, index: int, repeat: int) -> RunRequest:
    """Each run has a seed of its own: two arms that draw the same numbers would tell nothing of chance."""
    own = {"scaffold": scaffold, "seed": seed_for(seed, index, repeat, "comparison", 0)}
    return dataclasses.replace(request.run, settings=request.run.settings.model_copy(update=own), name=name)


def play_comparison(
    ledger: Ledger,
    comparison: Row,
    course: Course,
    box: Sandbox,
    slots: list[Slot],
    observer: Observer,
    stopper: Stopper,
    prices: Path | None = None,
) -> None:
    """Start it, or go on with it, to its end. Raises `InterruptedRunError` when stopped."""
    baseline = ledger.rows("SELECT * FROM runs WHERE id = ?", comparison["baseline_run_id"])[0]
    if baseline["state"] != RunState.FINISHED:
        with open_campaign(ledger, baseline, course, box, slots, observer, prices) as campaign:
            stopper.watch(campaign.crew)
            campaign.run()
    shared = trial_rows(ledger, baseline["id"])[0]["id"]
    rows = arm_rows(ledger, comparison["id"])
    for repeat in range(1, comparison["repeats"] + 1):
        block = [row for row in rows if row["repeat"] == repeat and row["state"] != RunState.FINISHED]
        if not block:
            continue
        observer.note(f"repeat {repeat} of {comparison['repeats']}")
        with contextlib.ExitStack() as stack:
            campaigns = []
            for row in block:
                campaign = stack.enter_context(open_campaign(ledger, row, course, box, slots, observer, prices))
                campaign.budget.pause()
                stopper.watch(campaign.crew)
                campaigns.append(campaign)
            order = random.Random(f"{comparison['seed']}:{repeat}")
            _play_block(campaigns, shared, order, observer)
    finish_comparison(ledger, comparison["id"])


def _play_block(campaigns: list[Campaign], shared: int, order: random.Random, observer: Observer) -> None:
    """Trial by trial, in an order that is drawn for every round: whatever drifts on the machine meets all alike.

    An arm's clock runs while it plays, and while it waits for its next proposal, as it would alone.
    """
    for campaign in campaigns:
        campaign.begin(shared)
    searching = list(campaigns)
    while searching:
        order.shuffle(searching)
        for campaign in list(searching):
            observer.note(f"now plays {campaign.row['name']}")
            campaign.budget.go_on()
            try:
                goes_on = campaign.step()
                campaign.proposing.settle()
            finally:
                campaign.budget.pause()
            if not goes_on:
                searching.remove(campaign)
    order.shuffle(campaigns)
    for campaign in campaigns:
        campaign.budget.go_on()
        campaign.end()
