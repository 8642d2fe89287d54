"""Trains a recorded trial again, in fresh sandboxes, without writing to the ledger."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import git
import numpy as np

from agentgolf.course import Course
from agentgolf.decide.accept import pooled_noise, prediction_interval, welch
from agentgolf.decide.policy import ancestry, incumbent
from agentgolf.domain import Slot, Split
from agentgolf.errors import CandidateError, PatchError, UsageError
from agentgolf.ledger.blobs import Blobs
from agentgolf.ledger.lineage import find_run, find_trial, noise_groups, replicate_rows, summaries, trial_rows
from agentgolf.ledger.steering import read_steering
from agentgolf.ledger.store import Ledger, Row, now
from agentgolf.loop.bench import Bench
from agentgolf.loop.observer import Observer, curve_point
from agentgolf.loop.pool import on_slots
from agentgolf.loop.session import open_bench, run_folder
from agentgolf.loop.specs import Spec
from agentgolf.patch.workspace import GitStore
from agentgolf.sandbox.base import Sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """`seeds` empty: the recorded ones. `onto`: a commit to re-apply the winning diffs on."""

    run: Row
    trial: Row
    seeds: tuple[int, ...]
    onto: str | None
    split_b: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """`low` and `high`: where the mean of the replayed scores had to fall. `commit`: only with --onto.

    With held-out B the baseline is trained again too, and the gain over it is given with its interval.
    """

    run: str
    trial: int
    split: Split
    seeds: tuple[int, ...]
    recorded: tuple[float, ...]
    replayed: tuple[float, ...]
    low: float | None
    high: float | None
    holds: bool
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    recorded_gain: float | None = None
    commit: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def parse_seeds(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UsageError(f"{text!r} is no list of seeds; write it as 1,2,3") from error


def find_target(ledger: Ledger, reference: str) -> tuple[Row, Row]:
    """A trial, or the incumbent of a run. Raises `UsageError` when there is no commit to train."""
    if reference.isdigit() or ":" in reference:
        run, trial = find_trial(ledger, reference)
    else:
        run = find_run(ledger, reference)
        decided = summaries(trial_rows(ledger, run["id"]))
        if not decided:
            raise UsageError(f"the run {reference!r} has no finished trial yet")
        _, trial = find_trial(ledger, f"{run['name']}:{incumbent(decided, read_steering(ledger, run['id'])).number}")
    if trial["commit_sha"] is None:
        raise UsageError(f"trial {trial['number']} was never applied ({trial['reason']}); there is nothing to replay")
    return run, trial


def replay(
    ledger: Ledger,
    request: ReplayRequest,
    course: Course,
    sandbox: Sandbox,
    slots: Sequence[Slot],
    observer: Observer,
) -> ReplayResult:
    """Raises `CandidateError` when the trial does not finish this time, `PatchError` when --onto conflicts."""
    run, trial = request.run, request.trial
    rows = replicate_rows(ledger, run["id"])
    split = Split.B if request.split_b else Split.A
    recorded_seeds, recorded = _recorded(rows, trial["id"], split)
    first_id = trial_rows(ledger, run["id"])[0]["id"]
    baseline_seeds, baseline_recorded = _recorded(rows, first_id, split)
    seeds = request.seeds or recorded_seeds
    if not seeds:
        raise UsageError(
            f"trial {trial['number']} has no finished replicate on held-out {split} to repeat; give --seeds 1,2,3"
        )
    folder = run_folder(ledger.folder, run["name"])
    store = GitStore(folder / "store.git")
    try:
        commit = trial["commit_sha"] if request.onto is None else reapply(ledger, store, course, request)
        with (
            tempfile.TemporaryDirectory(prefix="agentgolf-") as scratch,
            open_bench(Path(scratch), f"{run['name']}-replay", course, sandbox, ledger) as bench,
        ):
            bench.blobs = Blobs(Path(scratch) / "blobs")
            specs = _specs(store.files(commit), trial["number"], seeds, split, first=0)
            if split is Split.B and request.onto is None and trial["number"] != 0:
                base = trial_rows(ledger, run["id"])[0]
                specs += _specs(
                    store.files(base["commit_sha"]),
                    0,
                    request.seeds or baseline_seeds,
                    split,
                    first=len(specs),
                )
            if split is Split.B:
                with Ledger(ledger.folder, write=True, lock=False) as notes:
                    for spec in specs:
                        read = {
                            "trial_id": trial["id"] if spec.trial else first_id,
                            "seed": spec.seed,
                            "read_at": now(),
                        }
                        notes.insert("replayed", "replayed_b", read)
            scores = _measure(bench, specs, slots, observer)
    finally:
        store.close()
    replayed = tuple(scores[spec.replicate_id] for spec in specs if spec.trial == trial["number"])
    base_scores = tuple(scores[spec.replicate_id] for spec in specs if spec.trial != trial["number"])
    noise = pooled_noise(noise_groups(rows))
    expected = prediction_interval(recorded, len(replayed), noise) if recorded and request.onto is None else None
    holds = expected is None or expected[0] <= float(np.mean(replayed)) <= expected[1]
    gain = welch(base_scores, replayed, 0.0, noise) if base_scores else None
    low, high = gain.interval() if gain else (None, None)
    return ReplayResult(
        run=run["name"],
        trial=trial["number"],
        split=split,
        seeds=tuple(seeds),
        recorded=recorded,
        replayed=replayed,
        low=expected[0] if expected else None,
        high=expected[1] if expected else None,
        holds=holds,
        gain=gain.gain if gain else None,
        gain_low=low,
        gain_high=high,
        recorded_gain=float(np.mean(baseline_recorded) - np.mean(recorded)) if gain and recorded else None,
        commit=commit if request.onto is not None else None,
    )


def reapply(ledger: Ledger, store: GitStore, course: Course, request: ReplayRequest) -> str:
    """The winning diffs, from the baseline to the trial, merged in order onto another commit."""
    rows = {row["number"]: row for row in trial_rows(ledger, request.run["id"])}
    line = list(reversed(ancestry(summaries(list(rows.values())), request.trial["number"])))
    tip = _foreign_commit(store, course, str(request.onto))
    for older, newer in zip(line, line[1:]):
        old, new = rows[older.number]["commit_sha"], rows[newer.number]["commit_sha"]
        try:
            tip = store.commit_edits(tip, old, (store.diff(old, new),), newer.hypothesis)
        except PatchError as error:
            raise PatchError(
                f"trial {newer.number} ({newer.hypothesis}) does not go onto {request.onto}: {error}"
            ) from error
    store.set_ref(f"refs/agentgolf/onto/{request.trial['number']}", tip)
    return tip


def _foreign_commit(store: GitStore, course: Course, reference: str) -> str:
    """A commit of the run's own store, or of the user's repository (PATH@REF, or REF of the course's)."""
    known = store.resolve(reference)
    if known is not None:
        return known
    path, at, ref = reference.rpartition("@")
    folder = Path(path) if at else course.repo
    try:
        with git.Repo(folder, search_parent_directories=True) as repo:
            top = Path(str(repo.working_tree_dir)).resolve()
    except (git.InvalidGitRepositoryError, git.NoSuchPathError) as error:
        raise UsageError(f"{folder} is not a git repository; write --onto PATH@REF") from error
    fetched = store.fetch(top, ref)
    inside = folder.resolve() if at else course.repo
    prefix = "" if inside == top else inside.relative_to(top).as_posix() + "/"
    files = {name.removeprefix(prefix): data for name, data in store.files(fetched).items() if name.startswith(prefix)}
    return store.commit_files(files, f"{reference}, as fetched")


def _recorded(rows: Sequence[Row], trial_id: int, split: Split) -> tuple[tuple[int, ...], tuple[float, ...]]:
    purposes = ("final",) if split is Split.B else ("baseline", "search")
    found = [
        row for row in rows if row["trial_id"] == trial_id and row["purpose"] in purposes and row["outcome"] == "ok"
    ]
    return tuple(row["seed"] for row in found), tuple(row["val_bpb"] for row in found)


def _specs(files: dict[str, bytes], trial: int, seeds: Sequence[int], split: Split, first: int) -> list[Spec]:
    return [
        Spec(replicate_id=first + i, trial=trial, seed=seed, split=split, files=files, label=f"seed {seed}")
        for i, seed in enumerate(seeds)
    ]


def _measure(bench: Bench, specs: Sequence[Spec], slots: Sequence[Slot], observer: Observer) -> dict[int, float]:
    """val_bpb by replicate."""

    def one(spec: Spec, slot: Slot) -> float:
        observer.stage(spec.trial, f"training {spec.label}")
        trained = bench.train(spec, slot, lambda line: _follow(observer, spec, line))
        if trained.artifact is None:
            raise trained.error or CandidateError(trained.execution.outcome, trained.execution.message)
        observer.stage(spec.trial, f"scoring {spec.label}")
        log = trained.execution.log
        scored = bench.score(spec, slot, trained.artifact, trained.execution.clock_seconds, log)
        if scored.score is None:
            raise scored.error or CandidateError(trained.execution.outcome, "no score")
        return scored.score.val_bpb

    return dict(zip((spec.replicate_id for spec in specs), on_slots(slots, specs, one), strict=True))


def _follow(observer: Observer, spec: Spec, line: str) -> None:
    if point := curve_point(line):
        observer.curve(spec.trial, spec.label, point)
