"""What the commands read that use a reward model: generate, bench, eval, judge, sweep and reproduce.

The judge's key is no field: it stays in the environment.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pad_cli.recipe.settings import Always, DecodingSettings, EndpointSettings, ModelSettings, Settings, named
from pad_cli.recipe.training import DataSettings


class JudgeSettings(EndpointSettings):
    max_tokens: int = Field(512, ge=16, description="Longest verdict (tokens), thinking included.")
    max_cost: float | None = Field(None, gt=0, description="Most USD that judging this run may cost, all in all.")
    opponent: str | None = Field(
        None, description="The method that every other is judged against; by default that of `compare_with`."
    )
    limit: int | None = Field(None, ge=1, description="Items judged in each group, drawn by their ids; null for all.")

    @model_validator(mode="before")
    @classmethod
    def _without_former_keys(cls, content: Any) -> Any:
        """Recipes and runs of earlier versions name keys that are gone."""
        if not isinstance(content, dict):
            return content
        if content.get("modes", ["pairwise"]) != ["pairwise"]:
            raise ValueError("`modes`: the judge only compares answers in pairs; leave it out, or say [pairwise]")
        return {key: value for key, value in content.items() if key not in ("modes", "dimensions", "backoff")}


class BenchmarkSettings(Settings):
    benchmark: str = Field(description="A registered benchmark.")
    name: str = Field("", description="Name in the report, where several benchmarks have groups of one name.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that benchmark.")

    @property
    def label(self) -> str:
        return self.name or self.benchmark


class MethodSettings(Settings):
    method: str = Field(description="A registered method.")
    name: str = Field("", description="Name in the report; by default the method's.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that method.")
    guidance_weights: list[float] | None = Field(
        None, min_length=1, description="Guidance weights of this method alone; by default the recipe's."
    )

    @property
    def label(self) -> str:
        return self.name or self.method


class ScorerSettings(Settings):
    scorer: str = Field(description="A registered scorer.")
    name: str = Field("", description="Name in the report; by default the scorer's.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that scorer.")

    @property
    def label(self) -> str:
        return self.name or self.scorer


class GenerateRecipe(Settings):
    kind: Literal["generate"]
    policy: ModelSettings = Field(description="The frozen language model to steer.")
    reward_model: str = Field(description="Directory of a trained reward model, or `embedded/reward-model`.")
    decoding: DecodingSettings = Field(default_factory=lambda: DecodingSettings(), description="How to decode.")
    always: Always = Field(default_factory=dict, description="Minimum weights: principle to the least weight it has.")


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
    threads: int | None = Field(1, ge=1, description="CPU threads; 1 is timed in CPU time; null: torch's own number.")

    @model_validator(mode="after")
    def _consistent(self) -> BenchRecipe:
        timed = {"guidance_weight", "candidates", "reward_ngram", "path"}
        for name in sorted(self.decoding.model_fields_set - timed):
            raise ValueError(f"`decoding.{name}` cannot be set: answers are greedy and have `new_tokens` tokens")
        if self.decoding.guidance_weight == 0:
            raise ValueError("`decoding.guidance_weight` must not be 0: there would be no guidance to time")
        if self.benchmark is not None and "prompt_tokens" in self.model_fields_set:
            raise ValueError("`prompt_tokens` cannot be set: the prompts of a `benchmark` have their own lengths")
        return self


class EvalRecipe(Settings):
    kind: Literal["eval"]
    output: str = Field(description="Directory of the run; report.json is written here.")
    policies: dict[str, ModelSettings] = Field(min_length=1, description="Name to policy; the first is home.")
    reward_model: str = Field(description="Directory of a trained reward model, or `embedded/reward-model`.")
    methods: list[Annotated[MethodSettings, named("method")]] = Field(
        default_factory=lambda: [MethodSettings(method="base"), MethodSettings(method="pad")],
        min_length=1,
        description="Registered methods: names, or {method, name, options}.",
    )
    guidance_weights: list[float] = Field(
        default_factory=lambda: [1.0], min_length=1, description="Guidance weights of steering methods."
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
    always: Always = Field(default_factory=dict, description="Minimum weights: principle to the least weight it has.")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=lambda: [0], min_length=1, description="Seeds of sampling; an answer's score is their mean."
    )
    compare_with: str | None = Field(
        None,
        description="The method that every other is tested against; by default the first weighted one, else the last.",
    )
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples of an interval.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of intervals.")
    judge: JudgeSettings | None = Field(None, description="A language model that judges answers.")

    @model_validator(mode="after")
    def _consistent(self) -> EvalRecipe:
        if "guidance_weight" in self.decoding.model_fields_set:
            raise ValueError("set `guidance_weights`, not `decoding.guidance_weight`")
        if "seed" in self.decoding.model_fields_set:
            raise ValueError("set `seeds`, not `decoding.seed`")
        for kind, parts in (("methods", self.methods), ("scorers", self.scorers)):
            names = Counter(part.label for part in parts)
            if repeated := [name for name, count in names.items() if count > 1]:
                raise ValueError(f"`{kind}`: {', '.join(repeated)} is duplicated; give each a `name` of its own")
        if self.compare_with and self.compare_with not in (method.label for method in self.methods):
            raise ValueError(f"`compare_with`: no method is called '{self.compare_with}'")
        if len(self.seeds) > 1 and self.decoding.temperature == 0:
            raise ValueError("several `seeds` need `decoding.temperature` above 0: greedy answers ignore them")
        return self

    def weights_of(self, method: str) -> list[float]:
        """The guidance weights at which a weighted method, by its name in the report, answers."""
        own = {each.label: each.guidance_weights for each in self.methods}
        return own[method] or self.guidance_weights


class SweepRecipe(Settings):
    kind: Literal["sweep"]
    output: str = Field(description="Directory of the run; sweep.json is written here.")
    policy: ModelSettings = Field(description="The frozen language model to steer.")
    reward_model: str = Field(description="Directory of a trained reward model, or `embedded/reward-model`.")
    methods: list[Annotated[MethodSettings, named("method")]] = Field(
        default_factory=lambda: [MethodSettings(method="base"), MethodSettings(method="pad")],
        min_length=1,
        description="Registered methods, which compete for the front.",
    )
    benchmark: BenchmarkSettings = Field(description="Where prompts come from; its preferences are not used.")
    prompts: int = Field(40, ge=2, description="Use the first so many prompts.")
    objectives: dict[str, Annotated[ScorerSettings, named("scorer")]] = Field(
        min_length=2, max_length=3, description="Principle (or any preference) to the scorer that measures it."
    )
    weight_steps: int = Field(4, ge=1, description="Weights run over 0, 1/n, ..., 1: this is n.")
    guidance_weights: list[float] = Field(
        default_factory=lambda: [1.0], min_length=1, description="Guidance weights of steering methods."
    )
    candidates: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [10], min_length=1, description="C: numbers of competing tokens."
    )
    scorers: list[Annotated[ScorerSettings, named("scorer")]] = Field(
        default_factory=list, description="What else to measure at every point, for example fluency."
    )
    reference: list[float] | None = Field(
        None, description="Reference point of the hypervolume, one number an objective; default: the worst means."
    )
    decoding: DecodingSettings = Field(default_factory=lambda: DecodingSettings(), description="How to decode.")
    seed: int = Field(0, ge=0, description="Seed of sampling.")
    resamples: int = Field(500, ge=100, description="Bootstrap resamples of a hypervolume's interval.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of intervals.")

    @model_validator(mode="after")
    def _grids_stand_alone(self) -> SweepRecipe:
        for name, instead in (("guidance_weight", "guidance_weights"), ("candidates", "candidates"), ("seed", "seed")):
            if name in self.decoding.model_fields_set:
                raise ValueError(f"set `{instead}`, not `decoding.{name}`")
        if self.reference is not None and len(self.reference) != len(self.objectives):
            raise ValueError(f"`reference`: {len(self.reference)} numbers for {len(self.objectives)} objectives")
        return self


_NAME = re.compile(r"[\w(+-](?:[\w .,=()+-]{0,98}[\w)+-])?")


def _as_evaluation(value: Any) -> Any:
    """`kind` and `output` follow from where an evaluation stands."""
    if isinstance(value, Mapping) and "kind" not in value and "output" not in value:
        return {"kind": "eval", "output": ".", **value}
    return value


def _directory(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' cannot be the name of a directory; use letters, digits, spaces and .,=()+-_")
    return name


Directory = Annotated[str, AfterValidator(_directory)]
"""A name that becomes a directory below the run's, and never one elsewhere."""


class TableSettings(Settings):
    question: str = Field(description="What the table is to answer, one sentence.")
    scorers: list[str] = Field(default_factory=list, description="Scorers in the summary, by name; by default all.")
    runs: dict[Directory, Annotated[EvalRecipe, BeforeValidator(_as_evaluation)]] = Field(
        min_length=1, description="Label to an evaluation, written as in a recipe of kind eval without kind and output."
    )


class ReproduceRecipe(Settings):
    kind: Literal["reproduce"]
    output: str = Field(description="Directory of the run; each evaluation has a directory of its own below it.")
    tables: dict[Directory, TableSettings] = Field(min_length=1, description="Name to table.")
