"""Settings, from the weakest to the strongest: agentgolf.toml here, AGENTGOLF_* variables, the command line."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from agentgolf.errors import UsageError
from agentgolf.proposer.keys import take

CONFIG_FILE = "agentgolf.toml"
SandboxChoice = Literal["auto", "docker", "process"]


def default_scaffold() -> str:
    """The model, if one can be asked; else the offline proposers."""
    return "tool-agent" if take("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL") else "offline"


class Settings(BaseSettings):
    """What `agentgolf run` and its kin need to know."""

    model_config = SettingsConfigDict(env_prefix="AGENTGOLF_", toml_file=CONFIG_FILE, extra="ignore", frozen=True)

    runs: Path = Path("runs")
    course: str = "practice"
    track: str | None = None
    scaffold: str = Field(default_factory=lambda: default_scaffold())
    sandbox: SandboxChoice = "auto"
    jobs: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    prices: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(**given: Any) -> Settings:
    """`given` are the command line's values; None means not given. Raises `UsageError`."""
    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"the setting {key} is wrong: {first['msg']}, got {first.get('input')!r}") from error
    except ValueError as error:
        raise UsageError(f"{CONFIG_FILE} cannot be read: {error}") from error
