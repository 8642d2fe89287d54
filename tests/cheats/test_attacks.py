"""Every attack through the real pipeline, in both sandboxes: it scores nothing, harms nothing, and is named."""

import codecs
import functools
import hashlib
import json
import os
import re
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from agentgolf.course import load_course
from agentgolf.data import load_documents
from agentgolf.domain import Slot
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop.home import find_course
from tests.cheats.attacks import ATTACKS, SECRET, Attack
from tests.cheats.support import BOXES, sandbox
from tests.conftest import docker_problem
from tests.support import DATA, Fixture, course_toml

# The first test waits for all the attacks to be played.
pytestmark = pytest.mark.timeout(1200)

CANDIDATE = (Path(__file__).parent / "candidate" / "train.py").read_text()
TRAIN_DOCUMENTS, HELD_OUT = 60, 6

COURSE = course_toml(
    "prey",
    head='predictor = "train"\nimage = "agentgolf-practice"',
    text=DATA.replace('"lines"', '"jsonl"').replace("= 3", f"= {HELD_OUT}"),
    looks="[1, 2]",
    baseline=2,
    track="""\
train_seconds = 5
grace_seconds = 1
eval_seconds = 5
artifact_cap_bytes = 200_000
memory_bytes = 700_000_000
scratch_bytes = 50_000_000
""",
)


class Prey(Fixture):
    """A run in which every attack is a trial; the baseline is the honest candidate."""

    def __init__(self, folder: Path, core: int) -> None:
        self.core = core
        documents = load_documents(load_course(find_course("practice"))).train[: TRAIN_DOCUMENTS + 2 * HELD_OUT]
        # Of a kind that lies nowhere else on this machine.
        text = "".join(json.dumps({"text": codecs.encode(d.decode(), "rot13")}) + "\n" for d in documents)
        super().__init__(folder, [], COURSE, CANDIDATE, text, {"frozen.py": "FROZEN = 1\n"})
        held = load_documents(self.course).heldout_a
        wanted = max(re.findall(rb"[A-Z][^.]{60,}\.", b" ".join(held)), key=len)[:60]
        self.port = _listen(self)
        self.heard: list[bytes]
        interpreter = {part for prefix in (sys.prefix, sys.base_prefix) for part in Path(prefix).parts}
        known = {
            "WANTED_BACKWARDS": repr(wanted[::-1]),
            "INTERPRETER_PATH": repr(interpreter),
            "HOME_FOLDER": repr(str(Path.home())),
            "HOST_PORT": str(self.port),
        }
        lines = [{"hypothesis": attack.name, **self.line(attack, known)} for attack in ATTACKS]
        (folder / "scaffold" / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    @staticmethod
    def line(attack: Attack, known: dict[str, str]) -> dict[str, str]:
        if attack.diff:
            return {"diff": attack.diff}
        source = CANDIDATE
        for hook, code in attack.hooks.items():
            place = re.search(rf"^( *)(pass  )?# HOOK {hook}$", source, re.MULTILINE)
            assert place, hook
            body = "\n".join(place[1] + row for row in code.splitlines())
            for name, value in known.items():
                body = body.replace(name, value)
            source = source[: place.start()] + body + source[place.end() :]
        return {"file": "train.py", "find": CANDIDATE, "replace": source}

    def slots(self, jobs: int) -> list[Slot]:
        return [Slot(cores=(self.core,))]


def _listen(prey: Prey) -> int:
    """A server of the host's, which nothing in a sandbox may reach."""
    server = socket.create_server(("127.0.0.1", 0))
    prey.heard = []

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            prey.heard.append(connection.recv(100))

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


@functools.lru_cache(maxsize=1)
def played(folder: Path) -> dict[str, Prey]:
    """Both runs at once, each on a core of its own."""
    os.environ["AGENTGOLF_SECRET"] = SECRET
    boxes = ["process"] + ([] if docker_problem() else ["docker"])
    cores = sorted(os.sched_getaffinity(0))

    def play(number: int, box: str) -> Prey:
        prey = Prey(folder / box, cores[number % len(cores)])
        with sandbox(box) as real:
            prey.play(trials=len(ATTACKS), jobs=1, sandbox=real)
            assert real.reap({"run": "r"}, dry_run=True) == []
        return prey

    try:
        with ThreadPoolExecutor(len(boxes)) as pool:
            return dict(zip(boxes, pool.map(play, range(len(boxes)), boxes), strict=True))
    finally:
        del os.environ["AGENTGOLF_SECRET"]


@pytest.fixture(scope="module")
def preys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prey]:
    return played(tmp_path_factory.mktemp("cheats"))


def trial_of(prey: Prey, name: str) -> Row:
    with Ledger(prey.runs, write=False) as ledger:
        return ledger.rows("SELECT * FROM trials WHERE hypothesis = ?", name)[0]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("box", BOXES)
def test_an_attack_scores_nothing_and_is_named(preys: dict[str, Prey], box: str, attack: Attack) -> None:
    trial = trial_of(preys[box], attack.name)
    print(f"| {attack.name} | {box} | {trial['outcome']} | {trial['reason'][:150]} |")
    assert trial["verdict"] == "revert"
    assert trial["outcome"] in attack.ends, trial["reason"]
    assert re.search(attack.said, trial["reason"], re.DOTALL), trial["reason"]
    assert trial["outcome"] == "ok" or trial["val_bpb"] is None
    assert trial["reason"].isprintable() and len(trial["reason"]) < 600


@pytest.mark.parametrize("box", BOXES)
def test_no_attack_does_harm(preys: dict[str, Prey], box: str) -> None:
    prey = preys[box]
    assert prey.heard == []
    with Ledger(prey.runs, write=False) as ledger:
        assert [row["number"] for row in ledger.rows("SELECT number FROM trials WHERE verdict = 'keep'")] == [0]
        assert len(ledger.rows("SELECT 1 FROM trials")) == len(ATTACKS) + 1
        names = {row["hypothesis"] for row in ledger.rows("SELECT hypothesis FROM trials WHERE number > 0")}
        assert names == {attack.name for attack in ATTACKS}
        for row in ledger.rows("SELECT log_sha256 FROM executions WHERE log_sha256 IS NOT NULL"):
            assert "\x1b" not in ledger.blobs.read(row["log_sha256"]).decode()
        # A candidate cannot have itself run again by pretending that the engine failed.
        fake = ledger.rows("SELECT id FROM trials WHERE hypothesis = 'fakes an infrastructure failure'")[0]["id"]
        assert len(ledger.rows("SELECT 1 FROM replicates WHERE trial_id = ?", fake)) == 1
    for planted in ("/usr/owned", "/tmp/note", "/dev/shm/note", "/dev/shm/x0", "/tmp/more.bin", "/tmp/d0", "/tmp/f0"):
        assert not Path(planted).exists(), planted
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if "train.py" in (p.info["cmdline"] or [])]
    assert left == []
    repo = prey.course.repo
    assert sorted(p.name for p in repo.iterdir()) == ["frozen.py", "train.py"]
    assert (
        hashlib.sha256((repo / "train.py").read_bytes()).hexdigest() == hashlib.sha256(CANDIDATE.encode()).hexdigest()
    )


def test_the_list_of_attacks_is_in_the_threat_model() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "threat-model.md").read_text()
    for attack in ATTACKS:
        assert f"| {attack.name} |" in text, attack.name
