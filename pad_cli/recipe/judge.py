"""What `pad judge` reads: the `judge` of an eval recipe. The key is no field: it stays in the environment."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from pad_cli.recipe.models import Settings

Mode = Literal["pairwise", "rubric"]
DIMENSIONS = {
    "preference": "how well the answer follows what the user prefers",
    "helpful": "whether it answers the request, correctly and completely",
    "language": "whether it is fluent, natural and free of repetition",
}


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http address; write for example http://localhost:8000/v1")
    return value


class JudgeSettings(Settings):
    model: str = Field(min_length=1, description="Name of the judging model, as its server knows it.")
    base_url: Annotated[str, AfterValidator(_address)] | None = Field(
        None, description="OpenAI-compatible address, with its /v1; by default $OPENAI_BASE_URL, else OpenAI's own."
    )
    modes: list[Mode] = Field(
        default_factory=lambda: list[Mode](("pairwise",)),
        min_length=1,
        description="`pairwise`: which of two answers is better, asked in both orders; `rubric`: 1 to 10 a dimension.",
    )
    opponent: str | None = Field(
        None, description="The method that every other is judged against; by default that of `compare_with`."
    )
    dimensions: dict[Annotated[str, Field(min_length=1)], str] = Field(
        default_factory=lambda: dict(DIMENSIONS), min_length=1, description="Dimension of the rubric to what it asks."
    )
    limit: int | None = Field(None, ge=1, description="Items judged in each group, drawn by their ids; null for all.")
    temperature: float = Field(0.0, ge=0, le=2, description="Of the judge's sampling.")
    max_tokens: int = Field(512, ge=16, description="Longest verdict (tokens), thinking included.")
    concurrency: int = Field(8, ge=1, le=256, description="Requests under way at once.")
    requests_per_minute: float | None = Field(None, gt=0, description="Most requests begun a minute, evenly spaced.")
    timeout: float = Field(120.0, gt=0, description="Longest wait for a reply (seconds).")
    attempts: int = Field(6, ge=1, le=20, description="Tries of one request before it counts as failed.")
    backoff: float = Field(1.0, gt=0, description="Wait before the second try (seconds); it doubles with every try.")
    input_price: float | None = Field(None, ge=0, description="USD per million tokens read; null if not known.")
    output_price: float | None = Field(None, ge=0, description="USD per million tokens written; null if not known.")
    max_cost: float | None = Field(None, gt=0, description="Most USD that judging this run may cost, all in all.")

    @model_validator(mode="after")
    def _priced(self) -> JudgeSettings:
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("give both `input_price` and `output_price`, or neither")
        if self.max_cost is not None and self.input_price is None:
            raise ValueError("`max_cost` needs `input_price` and `output_price`")
        return self

    @model_validator(mode="after")
    def _modes_differ(self) -> JudgeSettings:
        if len(set(self.modes)) < len(self.modes):
            raise ValueError("`modes`: one stands there twice")
        return self
