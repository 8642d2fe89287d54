"""Scaffolds side by side: real runs over a fake sandbox, proposed by a real server that answers by scaffold."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgolf.errors import InterruptedRunError, UsageError
from agentgolf.ledger.comparisons import find_comparison
from agentgolf.ledger.store import Ledger
from agentgolf.loop.compare import CompareRequest, Stopper, arm_names, create_comparison, play_comparison
from agentgolf.loop.observer import Observer
from agentgolf.loop.session import RunRequest
from agentgolf.proposer import llm
from agentgolf.report.comparison import Comparison, compare_runs
from agentgolf.report.comparison_page import comparison_page
from tests.proposer.model_server import KEY, Served, Turn, serving
from tests.support import Fixture, fake_sandbox

EDIT = "HYPOTHESIS: {said}\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"


def script(request: dict[str, Any], _: int) -> Turn:
    """What a model of that name proposes: `good` finds quality, `crash` mostly crashes, any other turns the rate."""
    model, text = request["model"], request["messages"][1]["content"]
    quality = re.search(r"^QUALITY = ([\d.]+)", text, re.MULTILINE)
    assert quality is not None
    trials = text.count("- trial ") + 1
    old, new, said = "RATE = 0.5", f"RATE = 0.5{trials}", "another rate"
    if model == "good":
        old, new, said = quality[0], f"QUALITY = {float(quality[1]) + 0.1:.1f}", "more quality"
    elif model == "crash":
        new = f"RATE = 0.5{trials}  # fake: crash"
    return Turn(text=EDIT.format(old=old, new=new, said=said))


class Compared(Fixture):
    """The tiny course, and scaffolds that differ by their model's name."""

    def __init__(self, folder: Path, served: Served, monkeypatch: pytest.MonkeyPatch, models: list[str]) -> None:
        super().__init__(folder, [])
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", served.url)
        monkeypatch.setattr(llm, "FIRST_WAIT_SECONDS", 0.001)
        self.scaffolds = []
        for name in models:
            own = folder / "scaffolds" / name
            own.mkdir(parents=True, exist_ok=True)
            (own / "scaffold.toml").write_text(
                f'summary = "{name}"\nahead = false\nproposers = ["agent"]\n[model]\nname = "{name}"\n[agent]\n'
                "lessons = false\ncrash_repairs = 0\n"
            )
            self.scaffolds.append(str(own))

    def make(self, ledger: Ledger, *, trials: int | None = 3, repeats: int = 3, budget: float | None = None) -> Any:
        run = RunRequest(settings=self.settings, budget_seconds=budget, trials=trials, name=None)
        request = CompareRequest(run=run, scaffolds=tuple(self.scaffolds), repeats=repeats, name="c")
        return create_comparison(ledger, request, self.course, self.slots(1), fake_sandbox())

    def go_on(
        self,
        stopper: Stopper | None = None,
        on_transition: Callable[[str], None] | None = None,
        repeats: int = 3,
    ) -> None:
        with Ledger(self.runs, write=True, on_transition=on_transition) as ledger:
            known = ledger.rows("SELECT * FROM comparisons")
            made = known[0] if known else self.make(ledger, repeats=repeats)
            play_comparison(ledger, made, self.course, fake_sandbox(), self.slots(1), Observer(), stopper or Stopper())

    def result(self) -> Comparison:
        with Ledger(self.runs, write=False) as ledger:
            return compare_runs(ledger, "c")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compared]:
    """Three scaffolds of which one is better."""
    with serving(script) as served, pytest.MonkeyPatch.context() as monkeypatch:
        compared = Compared(tmp_path_factory.mktemp("played"), served, monkeypatch, ["rates", "good", "crash"])
        compared.go_on()
        yield compared


def test_the_planted_better_scaffold_is_found(played: Compared) -> None:
    found = played.result()
    arms = {arm.name: arm for arm in found.arms}
    assert found.winner == "good" and found.verdict.startswith("good is better than every other: +0.")
    assert found.state == "finished" and all(len(arm.runs) == 3 for arm in found.arms)
    assert arms["good"].keep_rate > 0.9 and arms["good"].gain_low > 0.02 and arms["rates"].keep_rate == 0
    assert arms["crash"].crash_rate > 0.9 and arms["crash"].gain_bpb == 0
    # Reverted changes of a number are one idea each time; what a model tried twice is a duplicate.
    assert arms["good"].tokens >= 3 * 3 * 120 and arms["good"].cost_usd is None
    assert [one.probability for one in found.duels if "good" not in (one.first, one.second)] == [0.5]
    curve = arms["good"].runs[0].points
    assert [point.gain_bpb for point in curve] == sorted(point.gain_bpb for point in curve) and len(curve) == 5
    assert curve[-1].tokens >= curve[1].tokens > 0 and curve[-1].spent_seconds > 0


def test_between_equals_no_winner_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(script) as served:
        compared = Compared(tmp_path, served, monkeypatch, ["good", "good"])
        compared.go_on()
    found = compared.result()
    assert [arm.name for arm in found.arms] == ["good", "good-2"]
    assert found.winner is None and "too small to tell them apart" in found.verdict
    seeds = {run.run for arm in found.arms for run in arm.runs}
    assert len(seeds) == 6


def test_the_baseline_is_measured_once_and_shared(played: Compared) -> None:
    with Ledger(played.runs, write=False) as ledger:
        rows = ledger.rows(
            "SELECT runs.name, group_concat(replicates.seed) AS seeds, group_concat(round(replicates.val_bpb, 9)) AS scores "
            "FROM replicates JOIN trials ON trials.id = trial_id JOIN runs ON runs.id = run_id "
            "WHERE purpose = 'baseline' GROUP BY runs.id"
        )
        executions = ledger.rows(
            "SELECT count(*) AS n FROM executions JOIN replicates ON replicates.id = replicate_id "
            "WHERE purpose = 'baseline' GROUP BY trial_id"
        )
    assert len(rows) == 10 and len({row["scores"] for row in rows}) == 1 and len({row["seeds"] for row in rows}) == 1
    assert {row["n"] for row in executions} == {9}


def test_arms_take_turns_trial_by_trial(played: Compared) -> None:
    with Ledger(played.runs, write=False) as ledger:
        decided = ledger.rows(
            "SELECT arm, repeat FROM trials JOIN comparison_runs USING (run_id) WHERE number > 0 ORDER BY decided_at, id"
        )
    assert len(decided) == 27
    rounds = [tuple(row["arm"] for row in decided[at : at + 3]) for at in range(0, 27, 3)]
    assert all(set(one) == {"rates", "good", "crash"} for one in rounds) and len(set(rounds)) > 1
    assert [row["repeat"] for row in decided] == sorted(row["repeat"] for row in decided)


def test_each_arm_has_its_own_budget(played: Compared) -> None:
    """What the others spend is not charged to it."""
    with Ledger(played.runs, write=False) as ledger:
        spent = ledger.rows(
            "SELECT arm, sum(spent_seconds) AS s, max(julianday(seen_at)) - min(julianday(sessions.started_at)) AS d "
            "FROM sessions JOIN comparison_runs USING (run_id) GROUP BY run_id"
        )
    assert all(0 < row["s"] < 86_400 * row["d"] + 1 for row in spent)
    total = sum(row["s"] for row in spent)
    assert total < sum(86_400 * row["d"] for row in spent)


def test_a_killed_comparison_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class DieError(Exception):
        pass

    count = 0

    def die(what: str) -> None:
        nonlocal count
        count += what == "decided"
        if count == 5:
            count += 1
            raise DieError

    with serving(script) as served:
        compared = Compared(tmp_path / "killed", served, monkeypatch, ["rates", "good"])
        with pytest.raises(DieError):
            compared.go_on(on_transition=die, repeats=1)
        assert compared.result().state == "open" and compared.result().verdict == "no repeat is finished yet"
        compared.go_on()
        whole = Compared(tmp_path / "whole", served, monkeypatch, ["rates", "good"])
        whole.go_on(repeats=1)
    chosen = "SELECT runs.name, number, hypothesis, verdict, round(val_bpb, 9) AS bpb FROM trials JOIN runs ON runs.id = run_id ORDER BY 1, 2"
    with Ledger(compared.runs, write=False) as one, Ledger(whole.runs, write=False) as other:
        assert one.rows(chosen) == other.rows(chosen)
        asked = "SELECT count(*) AS n FROM calls WHERE state = 'answered'"
        assert one.rows(asked) == other.rows(asked)


def test_a_stopped_comparison_stops_all_arms_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopper = Stopper()

    def stop(what: str) -> None:
        if what == "applied" and len(stopper.crews) >= 3:
            stopper.stop()

    with serving(script) as served:
        compared = Compared(tmp_path, served, monkeypatch, ["rates", "good"])
        with pytest.raises(InterruptedRunError):
            compared.go_on(stopper, on_transition=stop, repeats=2)
        compared.go_on()
    assert compared.result().winner == "good"


def test_the_page_stands_alone_and_shows_nothing_unescaped(played: Compared) -> None:
    found = played.result()
    page = comparison_page(found)
    body = page[page.index("</script>") :]
    assert "good is better than every other" in body and "model tokens" in body
    assert not re.search(r'(src|href)="?(https?:)?//', body)
    assert json.loads(json.dumps(found.to_dict()))["winner"] == "good"


def test_one_repeat_and_unknown_names_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(script) as served:
        compared = Compared(tmp_path, served, monkeypatch, ["rates", "good"])
        with Ledger(compared.runs, write=True) as ledger:
            made = compared.make(ledger, repeats=1, trials=1)
            play_comparison(ledger, made, compared.course, fake_sandbox(), compared.slots(1), Observer(), Stopper())
            with pytest.raises(UsageError, match="there is no comparison 'x'"):
                find_comparison(ledger, "x")
    assert "one repeat cannot tell" in compared.result().verdict
    assert arm_names(["a/b c", "b-c", "x"]) == ["b-c", "b-c-2", "x"]
    with pytest.raises(UsageError, match="at least two"):
        arm_names(["one"])
