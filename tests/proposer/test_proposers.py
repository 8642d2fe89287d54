"""The offline proposers: playbook, tuner, and their turns."""

import ast
import dataclasses
from pathlib import Path

import pytest

from agentgolf.domain import Outcome, Proposal, Verdict
from agentgolf.errors import ProposerExhaustedError, UsageError
from agentgolf.loop.home import shipped, shipped_names
from agentgolf.proposer.base import Context
from agentgolf.proposer.catalogue import Technique, load_catalogue
from agentgolf.proposer.constants import find_constants, replace_constants
from agentgolf.proposer.playbook import PlaybookProposer
from agentgolf.proposer.prompts import Prompts
from agentgolf.proposer.rotation import RotationProposer
from agentgolf.proposer.scaffold import load_scaffold
from agentgolf.proposer.scripted import ScriptedProposer
from agentgolf.proposer.tuner import TunerProposer
from tests.support import trial_summary

SOURCE = "RATE = 0.02\n# the decay\nDECAY = 0.95\nWIDTH = 64  # tune no\nBATCH = 16\nLAYERS = 2  # tune 1 4\nlower = 3\nNAME = 'x'\n"
BASELINE = trial_summary(
    number=0, parent=None, proposer="course", technique="baseline", verdict=Verdict.KEEP, val_bpb=1.5
)
TECHNIQUES = [
    Technique(name=name, title=name, order=i, bytes=kind, body="", diff=f"diff of {name}")
    for i, (name, kind) in enumerate([("table", "neither"), ("wide", "costs"), ("int6", "frees")])
]


class Game:
    """Feeds a proposer and plays back what became of each proposal."""

    def __init__(self) -> None:
        self.history = [BASELINE]
        self.parent = 0

    def context(self) -> Context:
        by_number = {trial.number: trial for trial in self.history}
        line, at = [], by_number.get(self.parent)
        while at is not None:
            line.append(at)
            at = by_number.get(at.parent) if at.parent is not None else None
        return Context(
            run_seed=0,
            number=len(self.history),
            parent=self.parent,
            origin="origin",
            files={"train.py": SOURCE},
            origin_files={"train.py": SOURCE},
            lineage=line,
            history=self.history,
            cap_bytes=100,
        )

    def record(
        self, proposal: Proposal, gain: float | None = None, outcome: Outcome = Outcome.OK, keep: bool = False
    ) -> None:
        number = len(self.history)
        self.history.append(
            dataclasses.replace(
                BASELINE,
                number=number,
                parent=self.parent,
                proposer=proposal.proposer,
                technique=proposal.technique,
                detail=proposal.detail,
                outcome=outcome,
                verdict=Verdict.KEEP if keep else Verdict.REVERT,
                gain_bpb=gain,
            )
        )
        if keep:
            self.parent = number


def test_every_single_technique_comes_first_in_its_turn() -> None:
    game, proposer = Game(), PlaybookProposer(TECHNIQUES)
    for name in ("table", "wide", "int6"):
        proposal = proposer.propose(game.context())
        assert (proposal.technique, proposal.base, proposal.edits) == (name, "origin", (f"diff of {name}",))
        game.record(proposal, gain=0.0)


def test_what_was_too_large_is_paired_with_what_frees_bytes() -> None:
    game, proposer = Game(), PlaybookProposer(TECHNIQUES)
    for gain, outcome in ((0.001, Outcome.OK), (None, Outcome.OVERSIZED), (-0.002, Outcome.OK)):
        game.record(proposer.propose(game.context()), gain, outcome)
    assert proposer.propose(game.context()).technique == "wide+int6"


def test_nothing_is_proposed_twice_on_one_parent_and_the_list_ends() -> None:
    game, proposer = Game(), PlaybookProposer(TECHNIQUES)
    seen = []
    with pytest.raises(ProposerExhaustedError):
        for _ in range(20):
            proposal = proposer.propose(game.context())
            seen.append(proposal.technique)
            game.record(proposal, gain=0.001)
    assert len(seen) == len(set(seen)) == 6, "three singles, three pairs"


def test_a_new_incumbent_brings_retries_but_not_of_what_it_has() -> None:
    game, proposer = Game(), PlaybookProposer(TECHNIQUES)
    game.record(proposer.propose(game.context()), gain=0.02, keep=True)
    seen = []
    with pytest.raises(ProposerExhaustedError):
        for _ in range(20):
            proposal = proposer.propose(game.context())
            seen.append(proposal.technique)
            game.record(proposal, gain=0.001)
    assert sorted(seen) == ["int6", "wide", "wide+int6"]


def test_constants_are_found_by_syntax_with_their_ranges() -> None:
    found = {constant.name: constant for constant in find_constants(SOURCE)}
    assert set(found) == {"RATE", "DECAY", "BATCH", "LAYERS"}
    assert (found["RATE"].low, found["RATE"].high, found["RATE"].log) == (0.01, 0.04, True)
    assert [found["DECAY"].low, found["DECAY"].high] == pytest.approx([0.9, 0.975])
    assert (found["BATCH"].low, found["BATCH"].high, found["BATCH"].is_int) == (8, 32, True)
    assert (found["LAYERS"].low, found["LAYERS"].high, found["LAYERS"].log) == (1, 4, False)
    assert find_constants("def broken(") == []


def test_replacing_a_constant_changes_nothing_else() -> None:
    new = replace_constants(SOURCE, {"RATE": 0.0312345, "BATCH": 24.0})
    assert new == SOURCE.replace("0.02", "0.0312").replace("16", "24")


def test_the_tuner_finds_a_planted_optimum_and_repeats_nothing() -> None:
    game, proposer = Game(), TunerProposer()
    best, keys = -1.0, set()
    for _ in range(60):
        proposal = proposer.propose(game.context())
        changed = proposal.detail["constants"]
        setting = proposal.detail["setting"]
        assert isinstance(changed, dict) and isinstance(setting, dict) and 1 <= len(changed) <= 3
        keys.add(repr(sorted(changed.items())))
        assert "+" in proposal.edits[0] and proposal.hypothesis.count("->") == len(changed)
        gain = 0.05 - abs(float(setting["train.py:RATE"]) - 0.033) * 5
        best = max(best, gain)
        game.record(proposal, gain=gain)
    assert len(keys) == 60
    late = [t.gain_bpb or 0 for t in game.history[31:] if "RATE" in t.detail["constants"].__repr__()]
    early = [t.gain_bpb or 0 for t in game.history[1:16] if "RATE" in t.detail["constants"].__repr__()]
    assert best > 0.045 and sum(late) / len(late) > sum(early) / len(early)


def test_a_tuner_is_a_function_of_its_context() -> None:
    game = Game()
    for _ in range(8):
        proposal = TunerProposer().propose(game.context())
        assert proposal == TunerProposer().propose(game.context())
        game.record(proposal, gain=0.001)


def test_turns_are_taken_and_the_exhausted_are_passed_over() -> None:
    game = Game()
    rotation = RotationProposer([PlaybookProposer(TECHNIQUES), TunerProposer()], [2, 1])
    names = []
    for _ in range(15):
        proposal = rotation.propose(game.context())
        names.append(proposal.proposer)
        game.record(proposal, gain=0.0)
    assert names[:6] == ["playbook", "playbook", "tuner"] * 2
    assert names.count("playbook") == 6 and names[-3:] == ["tuner"] * 3


def test_scripts_are_checked_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"hypothesis": "x", "diff": "d"}\n{"hypo": 1}\n')
    with pytest.raises(UsageError, match=r"s.jsonl:2: not a proposal"):
        ScriptedProposer(tmp_path / "s.jsonl")


def test_the_shipped_playbook_has_a_page_for_each_technique() -> None:
    catalogue = load_catalogue(shipped("prompts") / "playbook")
    assert len(catalogue) >= 10
    wanted = {
        "weight_decay",
        "weight_averaging",
        "smear_gate",
        "bigram_hash",
        "xsa",
        "depth_recurrence",
        "int6_export",
        "gptq_lite",
        "late_qat",
        "lzma_compressor",
    }
    assert wanted <= {technique.name for technique in catalogue}
    for technique in catalogue:
        for part in ("**What.**", "**Why.**", "**Source.**", "**When it fails.**"):
            assert part in technique.body, technique.name


@pytest.mark.parametrize("name", ["offline", "tuner", "playbook", "iid"])
def test_the_shipped_scaffolds_load(name: str) -> None:
    scaffold = load_scaffold(shipped("prompts") / name, shipped("prompts") / "playbook", shipped("prompts") / "common")
    assert scaffold.summary and scaffold.name == name


@pytest.mark.parametrize("text", ["", "summary = 1", 'summary = "x"\nproposers = ["nobody"]', "not toml ]["])
def test_a_malformed_scaffold_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "scaffold.toml").write_text(text)
    with pytest.raises(UsageError, match="scaffold.toml"):
        load_scaffold(tmp_path, tmp_path, tmp_path)


def test_the_course_script_has_constants_to_tune() -> None:
    source = (shipped("sandboxes") / "practice" / "repo" / "train_gpt.py").read_text()
    ast.parse(source)
    assert {"MATRIX_LR", "EMBED_LR", "BATCH_SIZE", "WARMDOWN_SHARE"} <= {c.name for c in find_constants(source)}


def test_every_shipped_scaffold_loads_and_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    documented = (shipped("prompts").parent / "docs" / "scaffolds.md").read_text()
    names = shipped_names("prompts")
    assert {"offline", "single-shot", "plan-then-patch", "reflect", "ideas-first", "minimal"} <= set(names)
    for name in names:
        scaffold = load_scaffold(
            shipped("prompts") / name, shipped("prompts") / "playbook", shipped("prompts") / "common"
        )
        assert scaffold.summary and f"`{name}`" in documented, name
        assert scaffold.trusted is (scaffold.model is None)


def test_a_template_with_an_unknown_name_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "task.md").write_text("line\n{{ unheard_of }}")
    with pytest.raises(UsageError, match=r"task.md.*unheard_of"):
        Prompts(folder=tmp_path, common=tmp_path).render("task.md")
    (tmp_path / "task.md").write_text("line\n{% if %}")
    with pytest.raises(UsageError, match=r"task.md:2"):
        Prompts(folder=tmp_path, common=tmp_path).render("task.md")
