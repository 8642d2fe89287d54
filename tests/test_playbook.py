"""The shipped techniques: each applies, trains and loads; every pair stacks; predictors stay causal."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agentgolf.course import load_course
from agentgolf.data import load_documents
from agentgolf.loop.home import find_course, shipped
from agentgolf.patch.workspace import GitStore
from agentgolf.proposer.catalogue import load_catalogue

SCRIPT = shipped("sandboxes") / "practice" / "repo" / "train_gpt.py"
CATALOGUE = load_catalogue(shipped("prompts") / "playbook")
ALL = "everything"
CHECK = """
import torch, train_gpt
from pathlib import Path
predictor = train_gpt.load(Path("artifact.bin"))
text = b"In the beginning \\xff\\x00 God created the heavens" * 20
ids = predictor.encode(text)
assert predictor.decode(ids) == text and max(ids) < predictor.vocab_size
def ask(ids, chunk):
    predictor.begin_document()
    return torch.cat([predictor.predict(torch.tensor(ids[i : i + chunk])) for i in range(0, len(ids), chunk)])
whole = ask(ids, len(ids))
assert whole.shape == (len(ids), predictor.vocab_size) and whole.isfinite().all()
assert (whole - ask(ids, 37)).abs().max() < 1e-4, "the size of a question changes the answer"
changed = ids[:200] + [(i + 7) % predictor.vocab_size for i in ids[200:]]
assert (whole[:200] - ask(changed, len(ids))[:200]).abs().max() < 1e-4, "a prediction depends on later tokens"
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[GitStore, str]:
    store = GitStore(tmp_path_factory.mktemp("store") / "store.git")
    return store, store.commit_files({"train_gpt.py": SCRIPT.read_bytes()}, "course")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A twentieth of the training text: the tokenizer then takes a tenth of a second."""
    folder = tmp_path_factory.mktemp("data")
    documents = load_documents(load_course(find_course("practice"))).train[:50]
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": d.decode()}) + "\n" for d in documents))
    return folder


def test_every_pair_of_techniques_merges(store: tuple[GitStore, str]) -> None:
    git, origin = store
    for one, other in itertools.combinations(CATALOGUE, 2):
        commit = git.commit_edits(origin, origin, (one.diff, other.diff), f"{one.name} + {other.name}")
        compile(git.files(commit)["train_gpt.py"], f"{one.name}+{other.name}", "exec")


@pytest.mark.trains
@pytest.mark.parametrize("name", ["baseline", *(technique.name for technique in CATALOGUE), ALL])
def test_a_technique_trains_exports_and_predicts(
    name: str, store: tuple[GitStore, str], data: Path, tmp_path: Path
) -> None:
    git, origin = store
    edits = tuple(technique.diff for technique in CATALOGUE if name in (technique.name, ALL))
    commit = git.commit_edits(origin, origin, edits, name) if edits else origin
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train_gpt.py").write_bytes(git.files(commit)["train_gpt.py"])
    env = {
        "PATH": "/usr/bin:/bin",
        "GOLF_SEED": "1",
        "GOLF_STEPS": "10",
        "GOLF_BUDGET_SECONDS": "60",
        "GOLF_CLOCK": "cpu",
        "GOLF_DATA_DIR": str(data),
        "GOLF_ARTIFACT": "artifact.bin",
    }
    for arguments in (["train_gpt.py"], ["-c", CHECK]):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path / "code", env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_record_track_starts_from_its_own_baseline(store: tuple[GitStore, str]) -> None:
    git, origin = store
    patch = (shipped("sandboxes") / "practice" / "record.patch").read_text()
    text = git.files(git.commit_edits(origin, origin, (patch,), "record"))["train_gpt.py"].decode()
    assert "VOCAB_SIZE = 1024" in text and "NUM_LAYERS = 3" in text
    commit = git.commit_edits(origin, origin, (patch,), "record")
    for technique in CATALOGUE:
        if technique.name != "larger_vocabulary":
            git.commit_edits(commit, origin, (technique.diff,), technique.name)
