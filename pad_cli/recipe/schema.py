"""The fields of a recipe: each has a type, a bound, a unit where it has one, and one sentence."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(_Settings):
    model: str = Field(
        description="Directory, GGUF file, hub id (`owner/name`, `owner/name/file.gguf`), or `embedded/NAME` of the "
        "embedded world."
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Number format of the weights; auto is the model's own, and float32 for GGUF files."
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`; auto takes the first GPU.")
    device_map: (
        Literal["auto", "balanced", "balanced_low_0", "sequential"]
        | Annotated[dict[str, str | Annotated[int, Field(ge=0)]], Field(min_length=1)]
        | None
    ) = Field(None, description="Spread over several devices: `auto`, `balanced`, or module name to device.")
    quantization: Literal["4bit", "8bit"] | None = Field(
        None, description="Pack the body's weights into this many bits while loading (bitsandbytes)."
    )
    attention: str | None = Field(
        None, min_length=1, description="`sdpa`, `eager`, `flash_attention_2`; by default what transformers chooses."
    )

    @model_validator(mode="after")
    def _one_placement(self) -> ModelSettings:
        if self.device_map is not None and self.device != "auto":
            raise ValueError("give either `device` or `device_map`")
        return self

    @model_validator(mode="after")
    def _packed_once(self) -> ModelSettings:
        if self.quantization is not None and self.model.endswith(".gguf"):
            raise ValueError("`quantization` cannot pack a GGUF file: leave it out, or name the model's own weights")
        return self


class DataSettings(_Settings):
    """Preference pairs: a named source, or JSONL files with prompt, preference, chosen and rejected."""

    source: str | None = Field(None, description="A registered source of preference pairs, for example `embedded`.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that source.")
    train: str | None = Field(None, description="JSONL file of training pairs, relative to the working directory.")
    validation: dict[str, str] = Field(default_factory=dict, description="Name to JSONL file of validation pairs.")
    limit: int | None = Field(None, ge=1, description="Use at most this many training pairs, drawn by seed.")
    texts: dict[str, list[str]] = Field(default_factory=dict, description="Principle to wordings, for the encoder.")
    max_prompt_tokens: int = Field(512, ge=1, description="Longer prompts lose their beginning (tokens).")
    max_answer_tokens: int = Field(512, ge=1, description="Longer answers lose their end (tokens).")
    shuffle_labels: bool = Field(False, description="Control: swap chosen and rejected at random before training.")

    @model_validator(mode="after")
    def _one_origin(self) -> DataSettings:
        if (self.source is None) == (self.train is None):
            raise ValueError("give either `source` or `train`")
        return self


class HeadSettings(_Settings):
    rank: int = Field(8, ge=1, le=1024, description="Rank r of each preference head.")
    principles: list[str] | None = Field(
        None, min_length=1, description="Head names; by default every principle in the data."
    )

    @model_validator(mode="after")
    def _distinct(self) -> HeadSettings:
        if self.principles is not None and len(set(self.principles)) < len(self.principles):
            raise ValueError("each principle may occur once")
        return self


class _Stage(_Settings):
    epochs: float | None = Field(None, gt=0, description="Passes over the training pairs; give this or `steps`.")
    steps: int | None = Field(None, ge=1, description="Optimiser steps; give this or `epochs`.")
    batch_size: int = Field(64, ge=1, description="Preference pairs in one step.")
    learning_rate: float = Field(5e-3, gt=0, description="Peak learning rate of AdamW (cosine, after warm-up).")
    warmup_steps: int = Field(20, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    beta: float = Field(0.5, gt=0, description="Loss temperature b in -log sigmoid(b * margin).")
    anchor: float = Field(0.03, ge=0, description="Weight c of the likelihood anchor relu(-sum r(chosen)).")

    @model_validator(mode="after")
    def _one_length(self) -> _Stage:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either `epochs` or `steps`")
        return self


class HeadsStage(_Stage):
    """The paper's step 2 in linear form: preference heads on a frozen backbone."""

    stage: Literal["heads"]


class EncoderStage(_Stage):
    """Free text to weights `w_p = g(text)`, with everything else frozen."""

    stage: Literal["encoder"]
    hidden_size: int = Field(64, ge=1, description="Width of the encoder's hidden layer.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout on the encoder's input and hidden layer.")


class TrainRecipe(_Settings):
    kind: Literal["train-rm"]
    output: str = Field(description="Directory of the run; the reward model is written here.")
    backbone: ModelSettings = Field(description="The language model under the reward model.")
    data: DataSettings = Field(description="The preference pairs.")
    heads: HeadSettings = Field(default_factory=lambda: HeadSettings(), description="The preference heads.")
    stages: list[Annotated[HeadsStage | EncoderStage, Field(discriminator="stage")]] = Field(
        min_length=1, description="Training stages, in order."
    )
    exact_vocabulary: int = Field(
        8192, ge=0, description="Up to this vocabulary size the loss normalises over all tokens."
    )
    normaliser_tokens: int = Field(
        64,
        ge=1,
        description="Above it: the reference's likeliest tokens of the corpus, per position, plus the realised.",
    )
    cache_dtype: Literal["float32", "bfloat16"] = Field("float32", description="Number format of cached hidden states.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")

    @model_validator(mode="after")
    def _heads_first(self) -> TrainRecipe:
        names = [stage.stage for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("each stage may occur once")
        if "encoder" in names and names[0] != "heads":
            raise ValueError("the `encoder` stage needs a `heads` stage before it")
        return self


class DecodingSettings(_Settings):
    guidance_weight: float = Field(1.0, description="Multiplier of the reward when decoding; 0 is plain decoding.")
    candidates: int = Field(10, ge=1, description="C: the policy's top tokens that compete at each step.")
    reward_ngram: int = Field(
        2, ge=0, description="A token that repeats an n-gram of this many tokens earns no reward; 0 turns this off."
    )
    max_new_tokens: int = Field(128, ge=1, description="Longest answer (tokens).")
    temperature: float = Field(0.0, ge=0, description="0 takes the best candidate; above, sample at this temperature.")
    top_k: int = Field(0, ge=0, description="Sample from this many best candidates; 0 for all of them.")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample from the likeliest candidates that hold this much mass.")
    min_p: float = Field(0.0, ge=0, le=1, description="Sample from candidates at least this share of the best.")
    repetition_penalty: float = Field(1.0, gt=0, description="Penalty on the policy's logits of tokens already read.")
    no_repeat_ngram_size: int = Field(
        0, ge=0, description="The policy never repeats an n-gram of this size; 0: it may."
    )
    seed: int = Field(0, ge=0, description="Seed of sampling; each answer has its own stream.")
    batch_size: int = Field(64, ge=1, description="Answers decoded together.")
    path: Literal["auto", "fused", "paired", "separate"] = Field(
        "auto", description="How policy and reward model read along; the result is the same."
    )
    draft_tokens: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = Field(
        "auto", description="Tokens that a small reward model drafts for the policy to verify at once; 0 for none."
    )
    policy_reads_preference: bool = Field(
        False, description="The policy's prompt is the reward model's prompt, which may hold the preference."
    )


class GenerateRecipe(_Settings):
    kind: Literal["generate"]
    policy: ModelSettings = Field(description="The frozen language model to steer.")
    reward_model: str = Field(description="Directory of a trained reward model, or `embedded/reward-model`.")
    decoding: DecodingSettings = Field(default_factory=lambda: DecodingSettings(), description="How to decode.")


class BenchmarkSettings(_Settings):
    benchmark: str = Field(description="A registered benchmark.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that benchmark.")


class EvalRecipe(_Settings):
    kind: Literal["eval"]
    output: str = Field(description="Directory of the run; report.json is written here.")
    policies: dict[str, ModelSettings] = Field(
        min_length=1, description="Name in the report to policy; the first is home."
    )
    reward_model: str = Field(description="Directory of a trained reward model, or `embedded/reward-model`.")
    methods: list[str] = Field(default_factory=lambda: ["base", "pad"], min_length=1, description="Registered methods.")
    guidance_weights: list[float] = Field(
        default_factory=lambda: [1.0], min_length=1, description="Guidance weights at which steering methods are run."
    )
    benchmarks: list[BenchmarkSettings] = Field(min_length=1, description="What to answer.")
    scorers: list[str] = Field(min_length=1, description="Registered scorers.")
    decoding: DecodingSettings = Field(default_factory=lambda: DecodingSettings(), description="How to decode.")

    @model_validator(mode="after")
    def _weight_is_swept(self) -> EvalRecipe:
        if "guidance_weight" in self.decoding.model_fields_set:
            raise ValueError("set `guidance_weights`, not `decoding.guidance_weight`")
        return self


class BenchRecipe(_Settings):
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


Recipe = Annotated[TrainRecipe | GenerateRecipe | EvalRecipe | BenchRecipe, Field(discriminator="kind")]
