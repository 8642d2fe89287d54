"""agentgolf compare, as a user types it: real trainings in the process sandbox, a real server as the model."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgolf.course import load_course
from agentgolf.data import load_documents
from agentgolf.loop.home import find_course
from tests.cheats.test_attacks import CANDIDATE, COURSE
from tests.proposer.model_server import KEY, Turn, serving
from tests.support import make_course_folder

# The honest candidate, with a constant worth tuning and a score that depends on its seed.
NOISY = CANDIDATE.replace(
    "    # HOOK train\n",
    '    import random\n\n    chance = random.Random(int(os.environ["GOLF_SEED"]))\n'
    "    texts = [chance.choice(texts) for _ in texts]\n",
).replace("0.05", "SMOOTHING")
NOISY = NOISY.replace("import numpy as np\n", "import numpy as np\n\nSMOOTHING = 0.5\n", 1)
EDIT = "HYPOTHESIS: {said}\n<<<<<<< SEARCH\nSMOOTHING = {old}\n=======\nSMOOTHING = {new}\n>>>>>>> REPLACE\n"


def script(request: dict[str, Any], _: int) -> Turn:
    """`good` smooths as much as helps; any other model changes next to nothing."""
    text = request["messages"][1]["content"]
    old = text.split("SMOOTHING = ")[1].split()[0]
    new = float(old) / 10 if request["model"] == "good" else float(old) * (1.1 + 0.1 * text.count("- trial "))
    return Turn(text=EDIT.format(said=f"smooth {new:g}", old=old, new=f"{new:g}"))


class Typed:
    """A folder with a course under git and scaffolds, and what agentgolf prints there."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        documents = load_documents(load_course(find_course("practice"))).train[:72]
        text = "".join(json.dumps({"text": document.decode()[:1500]}) + "\n" for document in documents)
        course = make_course_folder(folder / "course", COURSE, NOISY, text)
        for command in (
            ["init", "-q"],
            ["add", "."],
            ["-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "-qm", "c"],
        ):
            subprocess.run(["git", "-C", str(course), *command], check=True)
        for name in ("good", "poor", "also-poor"):
            (folder / name).mkdir()
            (folder / name / "scaffold.toml").write_text(
                f'summary = "{name}"\nproposers = ["agent"]\n[model]\nname = "{name}"\n[agent]\nlessons = false\n'
            )
        self.env = {**os.environ, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url, "COLUMNS": "80"}

    def agentgolf(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "agentgolf.cli.app", *words],
            cwd=self.folder, env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typed]:
    with serving(script) as served:
        yield Typed(tmp_path_factory.mktemp("typed"), served.url)


COMMON = ("--course", "course", "--sandbox", "process", "--trials", "1", "--repeats", "2", "--name", "c")


def test_compare_says_which_is_better_and_writes_a_page(typed: Typed) -> None:
    done = typed.agentgolf("compare", "good", "poor", *COMMON, "--html", "page.html")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "P(good beats poor) = " in done.stdout and "verdict: " in done.stdout
    assert "repeat 2 of 2" in done.stderr and "page: page.html" in done.stderr
    assert (typed.folder / "page.html").read_text().startswith("<!doctype html>")
    found = json.loads(typed.agentgolf("comparison", "c", "--json").stdout)
    arms = {arm["name"]: arm for arm in found["arms"]}
    assert arms["good"]["gain_bpb"] > 0.03 and arms["poor"]["gain_bpb"] == 0.0 and found["state"] == "finished"
    tree = typed.agentgolf("tree", "c.good.1").stdout
    assert "smooth 0.05" in tree and "keep" in tree


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["good", *COMMON], "give at least two scaffolds"),
        (["good", "nobody", *COMMON], "there is no scaffold 'nobody'"),
        (["good", "poor", "--course", "course"], "say how long each run may take"),
        (["good", "poor", *COMMON[:-1], "a b"], "cannot name a run"),
        (["good", "poor", "--course", "course", "--budget", "3s"], "is shorter than one trial"),
    ],
)
def test_a_mistake_is_one_sentence_and_makes_nothing(typed: Typed, words: list[str], said: str) -> None:
    done = typed.agentgolf("compare", *words, "--runs", "other", code=2)
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1
    shown = typed.agentgolf("comparison", "--runs", "other", code=2 if (typed.folder / "other").exists() else 1)
    assert len(shown.stderr.strip().splitlines()) == 1
