"""The recipes that are neither training nor evaluation, and the union of all of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pad_cli.recipe.decoding import Always, DecodingSettings
from pad_cli.recipe.evaluation import BenchmarkSettings, EvalRecipe
from pad_cli.recipe.models import ModelSettings, Settings
from pad_cli.recipe.reproduce import ReproduceRecipe
from pad_cli.recipe.sweep import SweepRecipe
from pad_cli.recipe.training import TrainRecipe


class GenerateRecipe(Settings):
    kind: Literal["generate"]
    policy: ModelSettings = Field(description="The frozen language model to steer.")
    reward_model: str = Field(description="Directory of a trained reward model, or `embedded/reward-model`.")
    decoding: DecodingSettings = Field(default_factory=lambda: DecodingSettings(), description="How to decode.")
    always: Always = Field(
        default_factory=dict,
        description="Safety floor: principle to the weight above 0 that it has at least, whatever is asked for.",
    )


class BenchRecipe(Settings):
    kind: Literal["bench"]
    policy: ModelSettings = Field(description="The frozen language model to steer.")
    reward_model: str = Field(description="Directory of a trained reward model, or `embedded/reward-model`.")
    batch_sizes: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [1, 8], min_length=1, description="Answers decoded together; each is measured."
    )
    prompt_tokens: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [128], min_length=1, description="Lengths of the prompts (tokens); each is measured."
    )
    benchmark: BenchmarkSettings | None = Field(
        None, description="Answer this benchmark's prompts and preferences, in place of random tokens."
    )
    new_tokens: int = Field(64, ge=1, description="Length of every answer (tokens).")
    repeats: int = Field(5, ge=1, description="How often each path is timed; medians are reported.")
    decoding: DecodingSettings = Field(
        default_factory=lambda: DecodingSettings(), description="How to decode; greedy. `path: auto` measures all."
    )
    threads: int | None = Field(
        1, ge=1, description="CPU threads: 1 is timed in CPU time, more in wall time; null leaves torch's number."
    )

    @model_validator(mode="after")
    def _greedy_and_guided(self) -> BenchRecipe:
        timed = {"guidance_weight", "candidates", "reward_ngram", "path"}
        for name in sorted(self.decoding.model_fields_set - timed):
            raise ValueError(f"`decoding.{name}` cannot be set: answers are greedy and have `new_tokens` tokens")
        if self.decoding.guidance_weight == 0:
            raise ValueError("`decoding.guidance_weight` must not be 0: there would be no guidance to time")
        return self

    @model_validator(mode="after")
    def _one_kind_of_prompts(self) -> BenchRecipe:
        if self.benchmark is not None and "prompt_tokens" in self.model_fields_set:
            raise ValueError("`prompt_tokens` cannot be set: the prompts of a `benchmark` have their own lengths")
        return self


AnyRecipe = TrainRecipe | GenerateRecipe | EvalRecipe | SweepRecipe | ReproduceRecipe | BenchRecipe
Recipe = Annotated[AnyRecipe, Field(discriminator="kind")]
