"""Scripts that score themselves: what they claim of a text from a known model convicts or acquits them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from agentgolf.course import load_course
from agentgolf.data import load_documents
from agentgolf.domain import Slot, Split
from agentgolf.ledger.store import Ledger
from agentgolf.loop import inquiry
from agentgolf.loop.home import find_course
from agentgolf.loop.observer import Observer
from agentgolf.report.summary import summarize
from agentgolf.report.tree import tree_rows
from agentgolf.report.trial import board_rows
from agentgolf.scoring.ngram import Trigram
from agentgolf.shards import write_shard
from tests.cheats.support import BOXES, sandbox
from tests.support import Fixture, course_toml, edit

SCRIPT = Path(__file__).parent / "self_scoring" / "train.py"
HONEST = ("ngram", "transformer", "transformer_sliding", "score_first")
CHEATS = ("hashed_cache", "window", "test_epochs", "gate")
TRAIN_TOKENS, VAL_TOKENS = 120_000, 8_000

SHARDS = """\
[shards]
train = ["train_0.bin"]
heldout_a = "val_a.bin"
heldout_b = "val_b.bin"
shown_as = "val.bin"
token_bytes = "bytes.json"
tail_tokens = 256
sha256 = "{shards}"

[report]
val_bpb = 'final_int8_zlib_roundtrip_exact val_loss:\\S+ val_bpb:(\\S+)'
val_loss = 'final_int8_zlib_roundtrip_exact val_loss:(\\S+)'
artifact_bytes = 'Total submission size int8\\+zlib: (\\d+) bytes'
"""
COURSE = course_toml(
    "selfish",
    head='scorer = "self_reported"\nimage = "agentgolf-practice"',
    text=SHARDS,
    looks="[1, 2]",
    baseline=2,
    track="""\
train_seconds = 120
grace_seconds = 5
eval_seconds = 30
artifact_cap_bytes = 100_000
memory_bytes = 2_000_000_000
""",
)


def make_shards(folder: Path) -> str:
    """Bytes of the practice course's text as tokens; gives the hash that course.toml pins."""
    documents = load_documents(load_course(find_course("practice")))
    text = np.frombuffer(b"\n".join(documents.train), np.uint8)
    write_shard(folder / "train_0.bin", text[:TRAIN_TOKENS])
    for name, part in (("val_a.bin", documents.heldout_a), ("val_b.bin", documents.heldout_b)):
        write_shard(folder / name, np.frombuffer(b"\n".join(part), np.uint8)[:VAL_TOKENS])
    (folder / "bytes.json").write_text(json.dumps([1] * 256))
    names = ("train_0.bin", "val_a.bin", "val_b.bin", "bytes.json")
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()


class Selfish(Fixture):
    """A run of a course whose script scores itself."""

    def __init__(self, folder: Path, lines: list[dict[str, str]]) -> None:
        (folder / "course").mkdir(parents=True)
        toml = COURSE.replace("{shards}", make_shards(folder / "course"))
        super().__init__(folder, lines, toml, SCRIPT.read_text())


def change(kind: str) -> dict[str, str]:
    # Works on whatever the incumbent's kind is.
    return edit(kind, "KIND = ", f'KIND = "{kind}" or ')


@pytest.mark.parametrize("box", BOXES)
def test_every_cheat_is_convicted_and_every_honest_script_acquitted(tmp_path: Path, box: str) -> None:
    """Every script is a trial of one run; then each is examined on a text that nobody has seen before."""
    kinds = [*HONEST[1:], *CHEATS]
    fixture = Selfish(tmp_path, [change(kind) for kind in kinds])
    with sandbox(box) as real:
        fixture.play(trials=len(kinds), jobs=1, sandbox=real)
        slot = Slot(cores=(0,))
        with Ledger(fixture.runs, write=False) as ledger:
            run = ledger.rows("SELECT * FROM runs")[0]
            for trial in ledger.rows("SELECT * FROM trials ORDER BY number"):
                kind = kinds[trial["number"] - 1] if trial["number"] else "ngram"
                if not ledger.rows("SELECT 1 FROM replicates WHERE trial_id = ? AND outcome = 'ok'", trial["id"]):
                    raise AssertionError(f"{kind} has no score: {trial['reason']}")
                request = inquiry.AuditRequest(run=run, trial=trial, replays=None, lockstep=False, split=Split.A)
                found = inquiry.examine(ledger, request, fixture.course, real, slot, Observer())
                assert found.exam is not None, f"{kind}: {found.error}"
                print(f"{box} {kind}: {found.exam.said()}")
                assert found.clean is (kind in HONEST), f"{kind}: {found.exam.said()}"
            verdicts = {row["trial"]: row for row in tree_rows(ledger, None)[1]}
            for number, kind in enumerate(kinds, 1):
                print(f"{box} {kind}: {verdicts[number]['verdict']} {verdicts[number]['outcome']}")
                if kind in CHEATS:
                    assert (verdicts[number]["outcome"], verdicts[number]["val_bpb"]) == ("invalid", None), kind


def test_an_inflated_byte_count_is_named_and_scores_nothing(tmp_path: Path) -> None:
    fixture = Selfish(tmp_path, [change("inflated")])
    with sandbox("process") as real:
        fixture.play(trials=1, jobs=1, sandbox=real)
    with Ledger(fixture.runs, write=False) as ledger:
        trial = ledger.rows("SELECT * FROM trials WHERE number = 1")[0]
        assert (trial["outcome"], trial["val_bpb"]) == ("invalid", None)
        assert "counted 1.177 times the bytes" in trial["reason"]
        # Labelled wherever it appears.
        assert {row["score_kind"] for row in ledger.rows("SELECT score_kind FROM scores WHERE outcome = 'ok'")} == {
            "self_reported"
        }
        assert summarize(ledger, None).score_kind == "self_reported"
        assert tree_rows(ledger, None)[1][0]["score_kind"] == "self_reported"
        assert board_rows(ledger, None, None)[0]["rows"][0]["score_kind"] == "self_reported"


def test_a_script_that_was_trained_is_not_trained_again_after_a_death(tmp_path: Path) -> None:
    fixture = Selfish(tmp_path, [])

    class DieError(Exception):
        pass

    def die(what: str) -> None:
        if what == "collected":
            raise DieError

    with sandbox("process") as real, pytest.raises(DieError):
        fixture.play(trials=0, sandbox=real, on_transition=die)
    with Ledger(fixture.runs, write=False) as ledger:
        (before,) = ledger.rows("SELECT * FROM replicates WHERE state = 'collected'")
    with sandbox("process") as real:
        fixture.play(trials=0, sandbox=real)
    with Ledger(fixture.runs, write=False) as ledger:
        after = ledger.rows("SELECT * FROM replicates WHERE id = ?", before["id"])[0]
        assert (after["state"], after["outcome"], after["collected_at"]) == ("scored", "ok", before["collected_at"])
        assert 1 < after["val_bpb"] < 4


def test_q_is_normalized_and_draws_what_it_says() -> None:
    rng = np.random.default_rng(0)
    model = Trigram(rng.integers(0, 20, 500), 20)
    for context in ((3, 7), (19, 19), (0, 1)):
        total = sum(float(np.exp(-model.nats([*context, w])[-1])) for w in range(20))
        assert total == pytest.approx(1.0)
    text = model.draw(0, 6000, rng)
    source = Trigram(text, 20)
    # Drawn text costs its own source less than a model of the drawn text with the same smoothing, and near its entropy.
    other = Trigram(rng.integers(0, 20, 500), 20)
    assert model.nats(text).sum() < other.nats(text).sum() - 100
    assert source.nats(text).sum() < model.nats(text).sum()
