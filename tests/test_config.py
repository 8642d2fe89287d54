"""Settings and durations."""

from pathlib import Path

import pytest

from agentgolf.config import load_settings
from agentgolf.duration import format_duration, parse_duration
from agentgolf.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("8h", 28800), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "10x", "1h 30m", "-5m", "0s", "8hh"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="90s, 10m, 8h or 1h30m"):
        parse_duration(text)


def test_durations_for_people() -> None:
    assert [format_duration(s) for s in (5, 725, 5400)] == ["5s", "12m 05s", "1h 30m"]


def test_command_line_beats_environment_beats_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agentgolf.toml").write_text('seed = 1\njobs = 3\nscaffold = "tuner"\n')
    monkeypatch.setenv("AGENTGOLF_SEED", "2")
    monkeypatch.setenv("AGENTGOLF_JOBS", "4")
    settings = load_settings(seed=5)
    assert (settings.seed, settings.jobs, settings.scaffold, settings.course) == (5, 4, "tuner", "practice")


@pytest.mark.parametrize("text", ["seed = 'x'", "not toml ]["])
def test_bad_settings_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agentgolf.toml").write_text(text)
    with pytest.raises(UsageError):
        load_settings()


def test_the_model_proposes_by_default_when_one_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert load_settings().scaffold == "offline"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert load_settings().scaffold == "tool-agent"
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert load_settings().scaffold == "tool-agent" and load_settings(scaffold="iid").scaffold == "iid"
