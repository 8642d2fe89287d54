"""What a run came to: read from the ledger, nothing measured anew."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from agentgolf.decide.accept import Evidence, mean_interval, pooled_noise, welch
from agentgolf.decide.policy import ancestry, incumbent
from agentgolf.domain import TrialSummary
from agentgolf.ledger.lineage import (
    find_run,
    noise_groups,
    replicate_rows,
    scores_of,
    spent_seconds,
    summaries,
    trial_rows,
)
from agentgolf.ledger.steering import read_steering
from agentgolf.ledger.store import Ledger

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run. Scores are mean val_bpb; `gain` is on held-out B with fresh seeds, None until measured.

    `improved`: the run is over, the gain's interval excludes zero, and its audit found no leak;
    `final_trouble` says what the audit found. `score_kind`: verified, or self_reported by the script.
    """

    run: str
    course: str
    track: str
    state: str
    sandbox: str
    scaffold: str
    ledger: str
    budget_seconds: float | None
    spent_seconds: float
    busy_share: float | None
    noise_bpb: float | None
    baseline_bpb: float | None
    baseline_interval: Interval | None
    incumbent: int | None
    incumbent_hypotheses: tuple[str, ...]
    incumbent_bpb: float | None
    incumbent_bytes: int | None
    search_gain: float | None
    final_baseline_bpb: float | None
    final_incumbent_bpb: float | None
    final_replicates: int
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    final_leak_bound_bpb: float | None
    final_trouble: str
    score_kind: str
    outcomes: dict[str, int]
    verdicts: dict[str, int]

    @property
    def improved(self) -> bool:
        return self.gain_low is not None and self.gain_low > 0 and not self.final_trouble

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "improved": self.improved}


def summarize(ledger: Ledger, name: str | None) -> Summary:
    run = find_run(ledger, name)
    rows, replicates = trial_rows(ledger, run["id"]), replicate_rows(ledger, run["id"])
    decided = summaries(rows)
    noise = pooled_noise(noise_groups(replicates))
    ids = {row["number"]: row["id"] for row in rows}
    baseline = scores_of(replicates, ids[0]) if rows else []
    best = incumbent(decided, read_steering(ledger, run["id"])) if decided else None
    old = scores_of(replicates, ids[0], "B") if rows else []
    new = scores_of(replicates, ids[best.number], "B") if best and best.number else []
    final: Evidence | None = welch(old, new, 0.0, noise) if old and new else None
    low, high = final.interval() if final else (None, None)
    line = ancestry(decided, best.number) if best else []
    spent = spent_seconds(ledger, run["id"])
    candidates = [row for row in decided if row.number > 0]
    return Summary(
        run=run["name"],
        course=run["course"],
        track=run["track"],
        state=run["state"],
        sandbox=run["sandbox"],
        scaffold=run["scaffold"],
        ledger=str(ledger.path),
        budget_seconds=run["budget_seconds"],
        spent_seconds=spent,
        busy_share=busy_share(ledger, run["id"], run["jobs"], spent),
        noise_bpb=noise[0] if noise[1] else None,
        baseline_bpb=_mean(baseline),
        baseline_interval=mean_interval(baseline, noise),
        incumbent=best.number if best else None,
        incumbent_hypotheses=tuple(t.hypothesis for t in reversed(line) if t.number > 0),
        incumbent_bpb=best.val_bpb if best else None,
        incumbent_bytes=best.counted_bytes if best else None,
        search_gain=_search_gain(baseline, best),
        final_baseline_bpb=_mean(old),
        final_incumbent_bpb=_mean(new),
        final_replicates=len(new),
        gain=final.gain if final else None,
        gain_low=low,
        gain_high=high,
        final_leak_bound_bpb=run["final_leak_bound_bpb"],
        final_trouble=run["final_trouble"] or "",
        score_kind=min((row["score_kind"] for row in replicates if row["score_kind"]), default="verified"),
        outcomes=dict(Counter(str(t.outcome) for t in candidates)),
        verdicts=dict(Counter(str(t.verdict) for t in candidates)),
    )


def busy_share(ledger: Ledger, run_id: int, jobs: int, spent: float) -> float | None:
    """Share of the budget, over all slots, that went into training and scoring."""
    rows = ledger.rows(
        "SELECT sum(e.wall_seconds) AS busy FROM executions e JOIN replicates r ON r.id = e.replicate_id "
        "JOIN trials t ON t.id = r.trial_id WHERE t.run_id = ? AND e.role IN ('train', 'predict')",
        run_id,
    )
    return float(rows[0]["busy"]) / (jobs * spent) if rows[0]["busy"] and spent else None


def _search_gain(baseline: list[float], best: TrialSummary | None) -> float | None:
    mean = _mean(baseline)
    return mean - best.val_bpb if best and best.number and mean is not None and best.val_bpb is not None else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
