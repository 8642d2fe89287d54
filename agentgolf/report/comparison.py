"""What a comparison of scaffolds came to: read from the ledger, nothing measured anew."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agentgolf.decide.compare import Duel, RunGain, bootstrap_interval, duels, winner
from agentgolf.decide.policy import ancestry, incumbent
from agentgolf.domain import Outcome, RunState, Verdict
from agentgolf.ledger.comparisons import arm_rows, find_comparison
from agentgolf.ledger.lineage import read_blob, replicate_rows, scores_of, spent_seconds, summaries, trial_rows
from agentgolf.ledger.steering import read_steering
from agentgolf.ledger.store import Ledger, Row
from agentgolf.patch.similar import distance

CRASHES = (Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY, Outcome.OVERSIZED, Outcome.INVALID)
_AGAIN = re.compile(r"the same code as trial \d|this is (nearly )?trial \d")
# Changes less far apart than this try the same thing.
SAME_IDEA = 0.5
# All pairs are compared; of a long run the newest stand for it.
MAX_DIFFS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An arm's gain on A over the baseline once so much was spent."""

    spent_seconds: float
    tokens: int
    cost_usd: float
    gain_bpb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCurve:
    """One run of an arm: how its incumbent grew, and its final gain on held-out B."""

    run: str
    repeat: int
    state: str
    final_gain_bpb: float
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One scaffold over its repeats. Rates are shares of its candidates.

    `ideas`: distinct ones among what was tried, per run; `distance`: the mean between two of a run's diffs,
    from 0 (the same) to 1 (nothing shared). Cost is None where no price is known.
    """

    name: str
    scaffold: str
    candidates: int
    gain_bpb: float
    gain_low: float
    gain_high: float
    keep_rate: float
    crash_rate: float
    reject_rate: float
    duplicate_rate: float
    ideas: float
    distance: float | None
    tokens: int
    cost_usd: float | None
    cost_usd_per_keep: float | None
    runs: tuple[RunCurve, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`verdict` says in a sentence whether there is a `winner`, and if not, how many repeats would tell."""

    name: str
    state: str
    course: str
    track: str
    repeats: int
    budget_seconds: float | None
    trials_limit: int | None
    arms: tuple[Arm, ...]
    duels: tuple[Duel, ...]
    winner: str | None
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_runs(ledger: Ledger, name: str | None) -> Comparison:
    """Raises `UsageError` when there is no such comparison."""
    comparison = find_comparison(ledger, name)
    rows = arm_rows(ledger, comparison["id"])
    names = list(dict.fromkeys(row["arm"] for row in rows))
    done = {
        repeat
        for repeat in range(1, comparison["repeats"] + 1)
        if all(row["state"] == RunState.FINISHED for row in rows if row["repeat"] == repeat)
    }
    gains = {arm: [_final(ledger, row) for row in rows if row["arm"] == arm and row["repeat"] in done] for arm in names}
    fought = duels(gains) if done else []
    best = winner(fought, names)
    arms = tuple(
        _arm(ledger, arm, [row for row in rows if row["arm"] == arm], gains[arm], comparison["seed"]) for arm in names
    )
    return Comparison(
        name=comparison["name"],
        state=comparison["state"],
        course=rows[0]["course"],
        track=rows[0]["track"],
        repeats=comparison["repeats"],
        budget_seconds=rows[0]["budget_seconds"],
        trials_limit=rows[0]["trials_limit"],
        arms=arms,
        duels=tuple(fought),
        winner=best,
        verdict=_verdict(arms, fought, best, len(done)),
    )


def _verdict(arms: Sequence[Arm], fought: Sequence[Duel], best: str | None, done: int) -> str:
    if done == 0:
        return "no repeat is finished yet"
    if best is not None:
        second = max((arm for arm in arms if arm.name != best), key=lambda arm: arm.gain_bpb)
        (ours,) = (arm for arm in arms if arm.name == best)
        ahead = f"{ours.gain_bpb - second.gain_bpb:+.4f} bpb over {second.name}, the next"
        return f"{best} is better than every other: {ahead}"
    if done < 2:
        return "one repeat cannot tell scaffolds apart: a difference may be this run's luck; give --repeats 3 or more"
    leading = max(arms, key=lambda arm: arm.gain_bpb)
    needed = [one.repeats_needed for one in fought if leading.name in (one.first, one.second)]
    known = [count for count in needed if count is not None]
    said = f"the budget was too small to tell them apart: {leading.name} leads, within the noise"
    if all(arm.gain_bpb == 0 for arm in arms):
        return "no scaffold found a gain: the budget was too small to tell them apart"
    if len(known) < len(needed) or not known:
        return said
    return f"{said}; differences of the size seen would need about {max(known)} repeats"


def _final(ledger: Ledger, run: Row) -> RunGain:
    """Nothing for a run that is not finished or kept nothing, or whose gain did not stand its audit."""
    rows, replicates = trial_rows(ledger, run["id"]), replicate_rows(ledger, run["id"])
    if run["state"] != RunState.FINISHED or run["final_trouble"]:
        return RunGain()
    best = incumbent(summaries(rows), read_steering(ledger, run["id"]))
    if best.number == 0:
        return RunGain()
    ids = {row["number"]: row["id"] for row in rows}
    old, new = scores_of(replicates, ids[0], "B"), scores_of(replicates, ids[best.number], "B")
    return RunGain(baseline_bpb=tuple(old), incumbent_bpb=tuple(new))


def _arm(ledger: Ledger, name: str, runs: Sequence[Row], gains: Sequence[RunGain], seed: int) -> Arm:
    trials = {run["id"]: [row for row in trial_rows(ledger, run["id"]) if row["number"] > 0] for run in runs}
    candidates = [row for rows in trials.values() for row in rows if row["state"] == "decided"]
    keeps = sum(row["verdict"] == Verdict.KEEP for row in candidates)
    spent = [_spending(ledger, run["id"]) for run in runs]
    costs = [cost for _, cost in spent if cost is not None]
    total = sum(costs) if costs else None
    low, high = bootstrap_interval(gains, seed) if gains else (0.0, 0.0)
    shown = [_variety(ledger, rows) for rows in trials.values()]
    apart = [mean for _, mean in shown if mean is not None]

    def rate(count: int) -> float:
        return count / len(candidates) if candidates else 0.0

    again = sum(bool(_AGAIN.search(row["reason"] or "")) for row in candidates)
    rejected = sum(row["outcome"] == Outcome.REJECTED for row in candidates)
    return Arm(
        name=name,
        scaffold=runs[0]["scaffold"],
        candidates=len(candidates),
        gain_bpb=statistics.fmean(one.gain for one in gains) if gains else 0.0,
        gain_low=low,
        gain_high=high,
        keep_rate=rate(keeps),
        crash_rate=rate(sum(row["outcome"] in CRASHES for row in candidates)),
        reject_rate=rate(rejected - again),
        duplicate_rate=rate(again),
        ideas=statistics.fmean(count for count, _ in shown),
        distance=statistics.fmean(apart) if apart else None,
        tokens=sum(tokens for tokens, _ in spent),
        cost_usd=total,
        cost_usd_per_keep=total / keeps if total is not None and keeps else None,
        runs=tuple(_curve(ledger, run) for run in runs),
    )


def _spending(ledger: Ledger, run_id: int, up_to: int | None = None) -> tuple[int, float | None]:
    """Tokens and dollars, of all trials or of those up to one."""
    (row,) = ledger.rows(
        "SELECT coalesce(sum(input_tokens + output_tokens), 0) AS tokens, sum(cost_usd) AS cost FROM calls "
        "WHERE run_id = ?1 AND (?2 IS NULL OR trial_number <= ?2)",
        run_id,
        up_to,
    )
    return int(row["tokens"]), row["cost"]


def _curve(ledger: Ledger, run: Row) -> RunCurve:
    rows = [row for row in trial_rows(ledger, run["id"]) if row["state"] == "decided"]
    points = [Point(spent_seconds=0.0, tokens=0, cost_usd=0.0, gain_bpb=0.0)]
    known = summaries(rows)
    for row, trial in zip(rows, known, strict=True):
        if row["number"] == 0:
            continue
        so_far = [one for one in known if one.number <= trial.number]
        best = incumbent(so_far)
        gain = sum(one.gain_bpb or 0.0 for one in ancestry(so_far, best.number))
        tokens, cost = _spending(ledger, run["id"], trial.number)
        spent = row["spent_seconds"] or points[-1].spent_seconds
        points.append(Point(spent_seconds=spent, tokens=tokens, cost_usd=cost or 0.0, gain_bpb=gain))
    tokens, cost = _spending(ledger, run["id"])
    last = points[-1].gain_bpb
    points.append(
        Point(spent_seconds=spent_seconds(ledger, run["id"]), tokens=tokens, cost_usd=cost or 0.0, gain_bpb=last)
    )
    return RunCurve(
        run=run["name"],
        repeat=run["repeat"],
        state=run["state"],
        final_gain_bpb=_final(ledger, run).gain,
        points=tuple(points),
    )


def _variety(ledger: Ledger, rows: Sequence[Row]) -> tuple[int, float | None]:
    """How many distinct ideas a run tried, and how far apart its diffs lie on average.

    Named techniques are distinct by name, other changes when no earlier one is near.
    """
    named = {row["technique"] for row in rows if row["technique"]}
    tried = [row for row in rows if row["diff_sha256"]][-MAX_DIFFS:]
    diffs = [(row["technique"], read_blob(ledger, row["diff_sha256"])) for row in tried]
    distances = [distance(one, other) for index, (_, one) in enumerate(diffs) for _, other in diffs[:index]]
    free = [diff for technique, diff in diffs if not technique]
    new = sum(all(distance(diff, earlier) >= SAME_IDEA for earlier in free[:index]) for index, diff in enumerate(free))
    return len(named) + new, statistics.fmean(distances) if distances else None
