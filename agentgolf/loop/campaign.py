"""One run: baseline, then propose, apply, train, score, decide, until the budget ends, then the final.

Every step reads the ledger for what is already done, so a resume is the same code as a first start.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from agentgolf.course import Course
from agentgolf.decide.accept import Judgement, Rules, judge, pooled_noise
from agentgolf.decide.leak import Leak
from agentgolf.decide.policy import incumbent, next_parent
from agentgolf.domain import Outcome, Proposal, ReplicateState, TrialState, Verdict
from agentgolf.errors import AgentgolfError, PatchError, ProposerExhaustedError
from agentgolf.ledger.comparisons import share_baseline
from agentgolf.ledger.lineage import noise_groups, replicate_rows, scores_of, summaries, trial_row, trial_rows
from agentgolf.ledger.steering import read_steering
from agentgolf.ledger.store import Decision, Ledger, Row
from agentgolf.loop.auditor import CLEAN, Audits, Finding
from agentgolf.loop.budget import Budget
from agentgolf.loop.crew import Crew
from agentgolf.loop.observer import Observer
from agentgolf.loop.pacing import MIN_FINAL_PAIRS, Pacing
from agentgolf.loop.plan import Planned, baseline_plan, final_plan, look_plan, seed_for
from agentgolf.loop.proposing import Proposing
from agentgolf.loop.specs import Spec
from agentgolf.patch.guard import guard
from agentgolf.patch.parse import parse_diff
from agentgolf.patch.workspace import GitStore


@dataclass(slots=True, kw_only=True)
class Campaign:
    """`run` plays to the end. The collaborators are the caller's to open and close."""

    row: Row
    course: Course
    ledger: Ledger
    store: GitStore
    proposing: Proposing
    crew: Crew
    auditor: Audits
    budget: Budget
    pacing: Pacing
    observer: Observer
    jobs: int

    def run(self) -> None:
        """Raises `InterruptedRunError` when stopped; the ledger then holds all that was finished."""
        self.begin()
        while self.step():
            pass
        self.end()

    def begin(self, shared_baseline: int | None = None) -> None:
        """Measure the baseline, or take over another run's trial of it, and take up what an earlier process left."""
        self._baseline(shared_baseline)
        last = max(row["number"] for row in trial_rows(self.ledger, self.row["id"]) if row["state"] == "decided")
        self.proposing.learn(last)

    def step(self) -> bool:
        """Play one trial; False when the search is over."""
        trial = self._open_trial() or self._next_trial()
        if trial is None:
            return False
        self._play(trial)
        self.proposing.learn(trial["number"])
        self.crew.check()
        return True

    def end(self) -> None:
        """Measure finally, and finish the run."""
        finding = self._final()
        self.budget.beat(force=True)
        self.ledger.finish_run(self.row["id"], finding.leak.bound_bpb if finding.leak else None, finding.trouble)

    # -- the stages

    def _baseline(self, shared: int | None = None) -> None:
        """Trial 0: the unmodified course, measured often enough to know the noise."""
        trials = trial_rows(self.ledger, self.row["id"])
        if not trials:
            nothing = Proposal(hypothesis="the unmodified course", edits=(), proposer="course", technique="baseline")
            self.ledger.propose(self.row["id"], 0, None, nothing)
            trials = trial_rows(self.ledger, self.row["id"])
        trial = trials[0]
        if trial["state"] == TrialState.PROPOSED:
            origin, start = self.row["origin_commit"], self._baseline_commit()
            self.ledger.apply(
                trial["id"],
                commit=start,
                tree=self.store.tree(start),
                fingerprint="",
                diff=self.store.diff(origin, start) if start != origin else "",
            )
            trial = trial_row(self.ledger, trial["id"])
        if trial["state"] == TrialState.DECIDED:
            return
        if shared is not None:
            share_baseline(self.ledger, shared, trial["id"])
        count = self.course.spec.decision.baseline_replicates
        self._measure(baseline_plan(trial["id"], count))
        scores, failed = self._scores(trial["id"]), self._failure(trial["id"])
        if failed is not None:
            raise AgentgolfError(
                f"the baseline does not finish ({failed['outcome']}: {failed['message']}); "
                f"see: agentgolf show {self.row['name']}:0 --log"
            )
        self._keep_ref(0, trial["commit_sha"], kept=True)
        self._decide(
            trial["id"],
            Decision(
                outcome=Outcome.OK,
                verdict=Verdict.KEEP,
                reason="the baseline",
                val_bpb=sum(scores) / len(scores),
                counted_bytes=self._counted_bytes(trial["id"]),
            ),
        )

    def _baseline_commit(self) -> str:
        """The course as its track starts it: the repo, with the track's own patch if it has one."""
        origin: str = self.row["origin_commit"]
        if self.course.limits.baseline is None:
            return origin
        diff = (self.course.folder / self.course.limits.baseline).read_text(encoding="utf-8")
        return self.store.commit_edits(origin, origin, (diff,), f"baseline of the track {self.course.track}")

    def _open_trial(self) -> Row | None:
        """The trial that an earlier process left in the middle, if any."""
        return next((t for t in trial_rows(self.ledger, self.row["id"]) if t["state"] != TrialState.DECIDED), None)

    def _next_trial(self) -> Row | None:
        """Propose one more, unless the budget, the limit or the proposer says that it is enough."""
        rows = trial_rows(self.ledger, self.row["id"])
        if not self.pacing.room_for(len(rows)):
            if self.row["trials_limit"] is None or len(rows) <= self.row["trials_limit"]:
                self.observer.note("what is left of the budget is kept for the final measurement; the search ends here")
            return None
        self.budget.beat()
        self.observer.stage(len(rows), "proposing")
        try:
            proposal, made_for = self.proposing.next(len(rows), lambda: self.pacing.room_for(len(rows)))
        except ProposerExhaustedError as error:
            self.observer.note(f"{error}; the search ends here")
            return None
        parent = self._parent_now(rows)
        if parent["number"] != made_for and not proposal.base:
            # Made while another trial was measured and kept: it is merged onto that one, or conflicts and is rejected.
            base = next(row["commit_sha"] for row in rows if row["number"] == made_for)
            proposal = dataclasses.replace(proposal, base=base)
        self.ledger.propose(self.row["id"], len(rows), parent["id"], proposal)
        return trial_rows(self.ledger, self.row["id"])[-1]

    def _parent_now(self, rows: Sequence[Row]) -> Row:
        """The trial that a proposal now goes onto."""
        steering = read_steering(self.ledger, self.row["id"])
        number = next_parent(self.proposing.scaffold.policy, summaries(rows), steering).number
        return next(row for row in rows if row["number"] == number)

    def _play(self, trial: Row) -> None:
        """From proposed to decided; starts wherever the ledger says that it stopped."""
        if trial["state"] == TrialState.PROPOSED:
            try:
                self._apply(trial)
            except PatchError as error:
                self._decide(trial["id"], Decision(outcome=Outcome.REJECTED, verdict=Verdict.REVERT, reason=str(error)))
                return
            trial = trial_row(self.ledger, trial["id"])
        if self.pacing.room_for(trial["number"] + 1):
            self.proposing.look_ahead(trial["number"] + 1)
        parent_id, done = trial["parent_id"], 0
        finding: Finding | None = None
        wanted = self.course.spec.decision.looks[0]
        while True:
            self._measure(look_plan(trial["id"], parent_id, done, wanted, self.jobs))
            failed = self._failure(trial["id"])
            if failed is not None:
                outcome = Outcome(failed["outcome"])
                self._finish(trial, None, Verdict.REVERT, outcome, failed["message"])
                return
            # Of a later look only what belongs to this one may count, or a resume would judge differently.
            rows = [
                row
                for row in replicate_rows(self.ledger, self.row["id"])
                if row["for_trial_id"] != trial["id"] or row["position"] < wanted
            ]
            noise = pooled_noise(noise_groups(rows))
            judgement = judge(scores_of(rows, parent_id), scores_of(rows, trial["id"]), self._rules(), noise)
            finding = self._audit(trial, judgement, first=done == 0) or finding
            if finding is not None and finding.trouble:
                self._finish(trial, judgement, Verdict.REVERT, Outcome.INVALID, finding.trouble, finding.leak)
                return
            found = finding.leak if finding else None
            if judgement.verdict is not None:
                self._finish(trial, judgement, judgement.verdict, Outcome.OK, judgement.reason, found)
                return
            done, wanted = wanted, self.pacing.next_look(trial["id"], wanted, judgement.wanted)
            if wanted == done:
                reason = f"the budget ended before replicate {judgement.wanted}: {judgement.reason}"
                self._finish(trial, judgement, Verdict.UNDECIDED, Outcome.OK, reason, found)
                return

    def _audit(self, trial: Row, judgement: Judgement, *, first: bool) -> Finding | None:
        """Only what may be kept is audited: a little after a promising first look, and as it needs before a keep."""
        if judgement.verdict is Verdict.KEEP:
            return self.auditor.before_keep(trial)
        return self.auditor.ordinary(trial) if judgement.verdict is None and first else None

    def _apply(self, trial: Row) -> None:
        """Raises `PatchError` when the edit is not allowed, conflicts, or was tried on this parent."""
        if refused := json.loads(trial["detail_json"]).get("refused"):
            raise PatchError(refused)
        parent = trial_row(self.ledger, trial["parent_id"])
        edits = tuple(json.loads(trial["edits_json"]))
        for edit in edits:
            guard(parse_diff(edit), self.course.is_editable)
        commit = self.store.commit_edits(
            parent["commit_sha"], trial["base_commit"] or parent["commit_sha"], edits, trial["hypothesis"]
        )
        patch = parse_diff(self.store.diff(parent["commit_sha"], commit))
        guard(patch, self.course.is_editable)
        tree = self.store.tree(commit)
        twins = self.ledger.rows(
            "SELECT number FROM trials WHERE run_id = ? AND tree_sha = ? AND id != ?",
            self.row["id"],
            tree,
            trial["id"],
        )
        if twins:
            raise PatchError(f"the same code as trial {twins[0]['number']}")
        self._keep_ref(trial["number"], commit, kept=False)
        self.ledger.apply(trial["id"], commit=commit, tree=tree, fingerprint=patch.fingerprint, diff=patch.diff)

    def _final(self) -> Finding:
        """Baseline and incumbent with fresh seeds on held-out B, more pairs while the budget lasts; then an audit."""
        decided = summaries(trial_rows(self.ledger, self.row["id"]))
        best = incumbent(decided, read_steering(self.ledger, self.row["id"]))
        if best.number == 0:
            return CLEAN
        ids = {row["number"]: row["id"] for row in trial_rows(self.ledger, self.row["id"])}
        count = self.course.spec.decision.final_replicates
        position = 0
        if self.row["budget_seconds"] is not None:
            count = MIN_FINAL_PAIRS
        while position < count or (
            self.row["budget_seconds"] is not None and self.pacing.fits(2, final_pairs=0, audits=position + 1)
        ):
            self.observer.stage(best.number, "final on B")
            self._measure(final_plan(ids[0], ids[best.number], position))
            position += 1
        return self.auditor.final(trial_row(self.ledger, ids[best.number]))

    # -- helpers

    def _measure(self, plan: Sequence[Planned]) -> None:
        """Launch what of the plan is not yet in the ledger, and finish all of it."""
        known = {
            (r["trial_id"], r["for_trial_id"], r["purpose"], r["position"]): r
            for r in replicate_rows(self.ledger, self.row["id"])
        }
        trials = {row["id"]: row for row in trial_rows(self.ledger, self.row["id"])}
        specs = []
        for planned in plan:
            row = known.get(planned.key)
            if row is not None and row["state"] == ReplicateState.SCORED:
                continue
            trial, sake = trials[planned.trial_id], trials[planned.for_trial_id]
            seed = seed_for(self.row["seed"], trial["number"], sake["number"], planned.purpose, planned.position)
            replicate_id = row["id"] if row else self.ledger.launch(*planned.key, seed=seed, split=planned.split)
            specs.append(
                Spec(
                    replicate_id=replicate_id,
                    trial=trial["number"],
                    seed=seed,
                    split=planned.split,
                    files=self.store.files(trial["commit_sha"]),
                    label=f"{planned.purpose} {planned.position + 1}",
                    artifact_sha256=row["artifact_sha256"] if row else None,
                    code_bytes=(row["code_bytes"] or 0) if row else 0,
                    train_seconds=(row["train_seconds"] or 0.0) if row else 0.0,
                    log_sha256=row["log_sha256"] if row and row["artifact_sha256"] else None,
                )
            )
        if specs:
            self.crew.measure(specs)

    def _finish(
        self,
        trial: Row,
        judgement: Judgement | None,
        verdict: Verdict,
        outcome: Outcome,
        reason: str,
        leak: Leak | None = None,
    ) -> None:
        # What was faked is no score.
        scores = self._scores(trial["id"]) if outcome is not Outcome.INVALID else []
        evidence = judgement.evidence if judgement and scores else None
        low, high = evidence.interval() if evidence else (None, None)
        if verdict is Verdict.KEEP:
            self._keep_ref(trial["number"], trial_row(self.ledger, trial["id"])["commit_sha"], kept=True)
        self._decide(
            trial["id"],
            Decision(
                outcome=outcome,
                verdict=verdict,
                reason=reason,
                val_bpb=sum(scores) / len(scores) if scores else None,
                gain_bpb=evidence.gain if evidence else None,
                gain_low=low,
                gain_high=high,
                p_value=evidence.p_value if evidence else None,
                counted_bytes=self._counted_bytes(trial["id"]),
                leak_bound_bpb=leak.bound_bpb if leak else None,
                leak_mean_nats=leak.mean_nats if leak else None,
                leak_upper_nats=leak.upper_nats if leak else None,
                leak_replays=leak.replays if leak else None,
            ),
        )

    def _decide(self, trial_id: int, decision: Decision) -> None:
        self.ledger.decide(trial_id, decision, self.budget.spent_seconds)
        self.budget.beat(force=True)
        rows = trial_rows(self.ledger, self.row["id"])
        self.observer.decided(next(row for row in rows if row["id"] == trial_id))

    def _keep_ref(self, number: int, commit: str, *, kept: bool) -> None:
        self.store.set_ref(f"refs/agentgolf/trials/{number}", commit)
        if kept:
            self.store.set_ref(f"refs/heads/agentgolf/{self.row['name']}", commit)

    def _scores(self, trial_id: int) -> list[float]:
        return scores_of(replicate_rows(self.ledger, self.row["id"]), trial_id)

    def _rules(self) -> Rules:
        spec = self.course.spec.decision
        return Rules(min_gain_bpb=spec.min_gain_bpb, level=spec.level, looks=spec.looks)

    def _failure(self, trial_id: int) -> Row | None:
        """The first replicate of this trial's own that did not end well."""
        rows = self.ledger.rows(
            "SELECT * FROM replicates WHERE trial_id = ? AND for_trial_id = ? AND state = 'scored' AND outcome != 'ok' "
            "ORDER BY id LIMIT 1",
            trial_id,
            trial_id,
        )
        return rows[0] if rows else None

    def _counted_bytes(self, trial_id: int) -> int | None:
        rows = self.ledger.rows(
            "SELECT max(artifact_bytes + code_bytes) AS n FROM replicates WHERE trial_id = ?", trial_id
        )
        return int(rows[0]["n"]) if rows[0]["n"] is not None else None
