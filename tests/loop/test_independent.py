"""Draws from the baseline: no history is read, and the best of them is what is measured finally."""

from pathlib import Path

from agentgolf.ledger.store import Ledger
from agentgolf.loop.home import shipped
from agentgolf.proposer.base import Context
from agentgolf.proposer.catalogue import load_catalogue
from agentgolf.proposer.independent import IndependentProposer
from agentgolf.report.summary import summarize
from tests.support import TRAIN_FILE, Fixture, edit, trial_summary

LINES = [edit("best", "QUALITY = 0.0", "QUALITY = 0.3"), edit("good", "QUALITY = 0.0", "QUALITY = 0.1")]


def test_every_candidate_starts_at_the_baseline_and_the_best_keep_wins(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, LINES)
    spec = Path(fixture.settings.scaffold) / "scaffold.toml"
    spec.write_text(spec.read_text() + 'policy = "baseline"\n')
    fixture.play(trials=2)
    with Ledger(fixture.runs, write=False) as ledger:
        trials = ledger.rows("SELECT parent_id, verdict FROM trials WHERE number > 0")
        assert [row["verdict"] for row in trials] == ["keep", "keep"]
        assert len({row["parent_id"] for row in trials}) == 1
        summary = summarize(ledger, None)
    assert summary.incumbent == 1 and summary.gain is not None and summary.gain > 0.2


def context(number: int, seed: int = 0, history: bool = False) -> Context:
    first = trial_summary(number=0)
    return Context(
        run_seed=seed,
        number=number,
        parent=0,
        origin="o",
        files={"train.py": TRAIN_FILE},
        origin_files={"train.py": TRAIN_FILE},
        lineage=[first],
        history=[first, *([trial_summary()] if history else [])],
        cap_bytes=1,
    )


def test_draws_depend_on_seed_and_number_alone() -> None:
    proposer = IndependentProposer(load_catalogue(shipped("prompts") / "playbook"))
    drawn = [proposer.propose(context(number)) for number in range(1, 41)]
    assert drawn == [proposer.propose(context(number, history=True)) for number in range(1, 41)]
    assert drawn != [proposer.propose(context(number, seed=1)) for number in range(1, 41)]
    kinds = {proposal.technique for proposal in drawn}
    assert "tune" in kinds and len(kinds) > 8
    assert all(proposal.edits[0] for proposal in drawn)
