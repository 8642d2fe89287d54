"""Which trial the next candidate grows from. Pure functions."""

from collections.abc import Sequence

from agentgolf.domain import TrialSummary, Verdict


def incumbent(trials: Sequence[TrialSummary]) -> TrialSummary:
    """The last kept trial: each keep was tested against the one before it. Trial 0 is the baseline."""
    kept = [trial for trial in trials if trial.verdict is Verdict.KEEP]
    return max(kept, key=lambda trial: trial.number)


def ancestry(trials: Sequence[TrialSummary], number: int) -> list[TrialSummary]:
    """A trial and its parents, up to the baseline."""
    by_number = {trial.number: trial for trial in trials}
    line, at = [], by_number.get(number)
    while at is not None:
        line.append(at)
        at = by_number.get(at.parent) if at.parent is not None else None
    return line
