"""What `pad eval` reads: benchmarks x methods x scorers, and how to compare."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pad_cli.recipe.decoding import Always, DecodingSettings
from pad_cli.recipe.judge import JudgeSettings
from pad_cli.recipe.models import ModelSettings, Settings
from pad_cli.recipe.training import DataSettings


class BenchmarkSettings(Settings):
    benchmark: str = Field(description="A registered benchmark.")
    name: str = Field(
        "",
        description="What the report calls it where several benchmarks have a group of one name; by default the "
        "benchmark's name.",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that benchmark.")

    @property
    def shown(self) -> str:
        return self.name or self.benchmark


class MethodSettings(Settings):
    method: str = Field(description="A registered method.")
    name: str = Field("", description="What the report calls it; by default the method's name.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that method.")

    @property
    def shown(self) -> str:
        return self.name or self.method


class ScorerSettings(Settings):
    scorer: str = Field(description="A registered scorer.")
    name: str = Field("", description="What the report calls it; by default the scorer's name.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that scorer.")

    @property
    def shown(self) -> str:
        return self.name or self.scorer


def named(key: str) -> BeforeValidator:
    """A name alone is short for `{key: name}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class EvalRecipe(Settings):
    kind: Literal["eval"]
    output: str = Field(description="Directory of the run; report.json is written here.")
    policies: dict[str, ModelSettings] = Field(
        min_length=1, description="Name in the report to policy; the first is home."
    )
    reward_model: str = Field(description="Directory of a trained reward model, or `embedded/reward-model`.")
    methods: list[Annotated[MethodSettings, named("method")]] = Field(
        default_factory=lambda: [MethodSettings(method="base"), MethodSettings(method="pad")],
        min_length=1,
        description="Registered methods: names, or {method, name, options}.",
    )
    guidance_weights: list[float] = Field(
        default_factory=lambda: [1.0], min_length=1, description="Guidance weights at which steering methods are run."
    )
    benchmarks: list[BenchmarkSettings] = Field(min_length=1, description="What to answer.")
    scorers: list[Annotated[ScorerSettings, named("scorer")]] = Field(
        min_length=1, description="Registered scorers: names, or {scorer, name, options}."
    )
    pairs: Annotated[DataSettings | None, named("train")] = Field(
        None,
        description="Preference pairs (as `data` of kind train-rm, or a JSONL file) on which reward model and guided "
        "policy are measured: its validation splits, or else its pairs; `limit` of each.",
    )
    decoding: DecodingSettings = Field(default_factory=lambda: DecodingSettings(), description="How to decode.")
    always: Always = Field(
        default_factory=dict,
        description="Safety floor: principle to the weight above 0 that it has at least, whatever is asked for.",
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=lambda: [0], min_length=1, description="Seeds of sampling; an answer's score is their mean."
    )
    compare_with: str | None = Field(
        None,
        description="The method that every other is tested against; by default the first weighted one, else the last.",
    )
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples of an interval.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of intervals.")
    judge: JudgeSettings | None = Field(None, description="A language model that judges the answers (`pad judge`).")

    @model_validator(mode="after")
    def _swept_elsewhere(self) -> EvalRecipe:
        if "guidance_weight" in self.decoding.model_fields_set:
            raise ValueError("set `guidance_weights`, not `decoding.guidance_weight`")
        if "seed" in self.decoding.model_fields_set:
            raise ValueError("set `seeds`, not `decoding.seed`")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> EvalRecipe:
        for kind, names in (
            ("methods", [method.shown for method in self.methods]),
            ("scorers", [scorer.shown for scorer in self.scorers]),
        ):
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise ValueError(f"`{kind}`: {', '.join(twice)} stands there twice; give each a `name` of its own")
        if self.compare_with and self.compare_with not in (method.shown for method in self.methods):
            raise ValueError(f"`compare_with`: no method is called '{self.compare_with}'")
        if len(self.seeds) > 1 and self.decoding.temperature == 0:
            raise ValueError(
                "several `seeds` need `decoding.temperature` above 0: greedy answers do not depend on them"
            )
        return self
