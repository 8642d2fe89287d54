"""What a model's tokens cost: the shipped, dated table, and the user's own on top of it."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentgolf.errors import UsageError
from agentgolf.ledger.calls import Prices
from agentgolf.loop.home import shipped

Price = Annotated[float, Field(ge=0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")

    as_of: str = ""
    models: dict[str, tuple[Price, Price] | tuple[Price, Price, Price]]


def load_prices(own: Path | None) -> Prices:
    """US dollars a million tokens by model: in, out, and in again, which costs the same unless the table says less.

    Raises `UsageError` when a table cannot be read.
    """
    prices: dict[str, tuple[float, float, float]] = {}
    for path in (shipped("prompts") / "prices.toml", own):
        if path is None:
            continue
        try:
            table = _Table.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
            prices |= {name: (price[0], price[1], (*price, price[0])[2]) for name, price in table.models.items()}
        except OSError as error:
            raise UsageError(f"the price table {path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: not valid TOML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise UsageError(
                f'{path}: {key}: {first["msg"]}; write "model" = [in, out, cached in] below [models]'
            ) from error
    return prices
