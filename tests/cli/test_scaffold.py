"""agentgolf scaffold: list, show, check, new."""

import json
from pathlib import Path

import pytest

from tests.cli.test_reading import call


def test_the_shipped_ones_are_listed_and_each_is_in_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "scaffold", "list")
    assert code == 0 and "single-shot" in out and "needs no model" in out and max(map(len, out.splitlines())) <= 80
    _, out, _ = call(capsys, monkeypatch, "scaffold", "list", "--json")
    for info in json.loads(out):
        code, out, _ = call(capsys, monkeypatch, "scaffold", "check", info["name"])
        assert code == 0 and out.startswith(f"{info['name']} is in order")


def test_a_scaffold_shows_what_the_model_reads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "scaffold", "show", "single-shot")
    assert code == 0 and "128,000 bytes" in out and "class GPT" in out and "SEARCH" in out and "BigramHash" in out


def test_a_copy_can_be_made_and_a_mistake_in_it_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    code, out, _ = call(capsys, monkeypatch, "scaffold", "new", folder)
    assert code == 0 and "agentgolf scaffold check" in out
    assert call(capsys, monkeypatch, "scaffold", "new", folder)[0] == 2
    (folder / "task.md").write_text("{{ nonsense }}")
    code, _, err = call(capsys, monkeypatch, "scaffold", "check", folder)
    assert code == 2 and "task.md" in err and "nonsense" in err and "Traceback" not in err
    toml = (folder / "scaffold.toml").read_text()
    (folder / "scaffold.toml").write_text(toml.replace("repairs = 2", 'repairs = 2\nsteps = ["plan.md", "task.md"]'))
    code, _, err = call(capsys, monkeypatch, "scaffold", "check", folder)
    assert code == 2 and "lacks plan.md" in err
    (folder / "scaffold.toml").write_text("summary = 1")
    code, _, err = call(capsys, monkeypatch, "scaffold", "check", folder)
    assert code == 2 and "scaffold.toml" in err
    assert call(capsys, monkeypatch, "scaffold", "check", "unheard-of")[0] == 2
