"""Which trial the next candidate grows from. Pure functions."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from agentgolf.domain import Outcome, Steering, TrialSummary, Verdict

Policy = Literal["incumbent", "baseline"]
NO_STEERING = Steering()


def next_parent(policy: Policy, trials: Sequence[TrialSummary], steering: Steering = NO_STEERING) -> TrialSummary:
    """Where the next candidate starts: at the incumbent, or always at the baseline."""
    if policy == "baseline" and steering.pinned is None:
        return next(trial for trial in trials if trial.number == 0)
    return incumbent(trials, steering)


def incumbent(trials: Sequence[TrialSummary], steering: Steering = NO_STEERING) -> TrialSummary:
    """The kept trial with the greatest gain over the baseline, summed along its line; trial 0 is the baseline.

    In a run that always grows from its incumbent that is the last one kept: each was tested against the one
    before it. Vetoed trials and what grew from them are passed over. With a pin it is the best that grew from
    the pinned trial, or that trial itself.
    """
    by_number = {trial.number: trial for trial in trials}
    kept = [
        trial
        for trial in trials
        if trial.verdict is Verdict.KEEP
        and not steering.vetoed & {one.number for one in ancestry(trials, trial.number)}
    ]
    pinned = by_number.get(steering.pinned) if steering.pinned is not None else None
    if pinned is not None:
        grown = [trial for trial in kept if pinned.number in {one.number for one in ancestry(trials, trial.number)}]
        kept = [pinned, *grown]

    def gained(trial: TrialSummary) -> tuple[float, int]:
        return sum(one.gain_bpb or 0.0 for one in ancestry(trials, trial.number)), trial.number

    return max(kept, key=gained)


def ancestry(trials: Sequence[TrialSummary], number: int) -> list[TrialSummary]:
    """A trial and its parents, up to the baseline."""
    by_number = {trial.number: trial for trial in trials}
    line, at = [], by_number.get(number)
    while at is not None:
        line.append(at)
        at = by_number.get(at.parent) if at.parent is not None else None
    return line


def feedback(trials: Sequence[TrialSummary], noise_bpb: float) -> list[TrialSummary]:
    """Trials as proposers may see them: scores rounded to the noise's leading digit.

    Finer digits say nothing of a candidate, and would let a search tune itself to half A. So of the reason for a
    verdict on a score only the words before the numbers are left.
    """
    step = 10.0 ** math.floor(math.log10(noise_bpb)) if noise_bpb > 0 else 1e-4
    digits = max(0, -round(math.log10(step)))

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(round(value / step) * step, digits)

    return [
        dataclasses.replace(
            trial,
            val_bpb=rounded(trial.val_bpb),
            gain_bpb=rounded(trial.gain_bpb),
            gain_low=rounded(trial.gain_low),
            gain_high=rounded(trial.gain_high),
            reason=trial.reason.partition(":")[0] if trial.outcome is Outcome.OK else trial.reason,
        )
        for trial in trials
    ]
