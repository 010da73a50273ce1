"""The fields of a `train-rm` recipe: the preference pairs, the heads, and the stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pad_cli.recipe.settings import DecodingSettings, ModelSettings, Settings, named


class PairsSettings(Settings):
    """One place that preference pairs come from."""

    path: str | None = Field(None, description="JSONL file, relative to the working directory.")
    dataset: str | None = Field(None, description="Hub id or directory of a data set that `datasets` loads.")
    config: str | None = Field(None, description="Configuration of the data set.")
    split: str = Field("train", min_length=1, description="Split of the data set, `train[:1000]` too.")
    revision: str | None = Field(None, description="Branch, tag or commit of the data set on the hub.")
    format: str = Field("pairs", description="A registered pair format: what the rows mean.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that format.")
    weight: float = Field(1.0, gt=0, le=100, description="How often each of its pairs is trained on.")

    @model_validator(mode="after")
    def _one_origin(self) -> PairsSettings:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give either `path` or `dataset`")
        of_dataset = {"config", "split", "revision"} & self.model_fields_set
        if self.path is not None and of_dataset:
            raise ValueError(f"`{min(of_dataset)}` belongs to a `dataset`, not to a `path`")
        return self


def _listed(value: Any) -> Any:
    """One source alone is short for a list of it."""
    return value if isinstance(value, list) or value is None else [value]


_Source = Annotated[PairsSettings, named("path")]


class DataSettings(Settings):
    """Preference pairs: a named source, or files and data sets."""

    source: str | None = Field(None, description="A registered source of preference pairs, for example `embedded`.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that source.")
    train: Annotated[list[_Source] | None, BeforeValidator(_listed)] = Field(
        None, min_length=1, description="Training pairs: a JSONL file, or one or more sources."
    )
    validation: dict[str, _Source] = Field(default_factory=dict, description="Name to a JSONL file or a source.")
    validation_share: float = Field(
        0.0, ge=0, le=0.5, description="Share of the training prompts that is held out as the split `held_out`."
    )
    contrast: bool = Field(True, description="Add the pairs that answers written for one preference each imply.")
    bad_rows: Literal["error", "drop"] = Field("error", description="Rows that cannot be read: stop, or count them.")
    limit: int | None = Field(None, ge=1, description="Use at most this many training pairs, drawn by seed.")
    texts: dict[str, list[str]] | str = Field(
        default_factory=dict,
        description="For the encoder: principle to wordings, a `principles.yaml`, or `shipped`.",
    )
    max_prompt_tokens: int = Field(512, ge=1, description="Longer prompts lose their beginning (tokens).")
    max_answer_tokens: int = Field(512, ge=1, description="Longer answers lose their end (tokens).")
    shuffle_labels: bool = Field(False, description="Control: swap chosen and rejected at random before training.")

    @model_validator(mode="after")
    def _one_origin(self) -> DataSettings:
        if (self.source is None) == (self.train is None):
            raise ValueError("give either `source` or `train`")
        return self


class HeadSettings(Settings):
    rank: int = Field(8, ge=1, le=1024, description="Rank r of each preference head.")
    principles: list[str] | None = Field(None, min_length=1, description="Head names; by default all in the data.")

    @model_validator(mode="after")
    def _distinct(self) -> HeadSettings:
        if self.principles is not None and len(set(self.principles)) < len(self.principles):
            raise ValueError("each principle may occur once")
        return self


class Optimised(Settings):
    """What every stage has: its length, and AdamW's settings."""

    epochs: float | None = Field(None, gt=0, description="Passes over the training pairs; give this or `steps`.")
    steps: int | None = Field(None, ge=1, description="Optimiser steps; give this or `epochs`.")
    batch_size: int = Field(64, ge=1, description="Preference pairs in one step.")
    learning_rate: float = Field(5e-3, gt=0, description="Peak learning rate of AdamW (cosine, after warm-up).")
    warmup_steps: int = Field(20, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    evaluate_every: int | None = Field(
        None, ge=1, description="Measure the validation splits every this many steps, and keep the best weights."
    )
    patience: int | None = Field(
        None, ge=1, description="Stop after this many such measurements without better policy accuracy."
    )

    @model_validator(mode="after")
    def _one_length(self) -> Optimised:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either `epochs` or `steps`")
        if self.patience is not None and self.evaluate_every is None:
            raise ValueError("`patience` counts the measurements of `evaluate_every`: set that too")
        return self


class Stage(Optimised):
    """A stage that learns from preference pairs."""

    beta: float = Field(0.5, gt=0, description="Loss temperature b in -log sigmoid(b * margin).")
    anchor: float = Field(0.03, ge=0, description="Weight c of the likelihood anchor relu(-sum r(chosen)).")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed share of pairs with swapped labels.")
    length_normalised: bool = Field(
        False, description="Divide an answer's summed reward by its tokens; `beta` is then per token."
    )


class HeadsStage(Stage):
    """The paper's step 2 in linear form: preference heads on a frozen backbone."""

    stage: Literal["heads"]
    loss: Literal["preference", "likelihood"] = Field(
        "preference",
        description="`likelihood` is LM-Steer's: of chosen answers under the preference, of rejected ones under its "
        "opposite; `beta`, `anchor` and `label_smoothing` have no effect on it.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the states that the heads read.")


class DistilStage(Optimised):
    """Preference heads from the principles' instructions, token by token, on a frozen backbone."""

    stage: Literal["distil"]
    batch_size: int = Field(16, ge=1, description="Answers in one step.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW (cosine, after warm-up).")
    contrast: float = Field(
        1.0, gt=0, description="The heads learn what an instruction changes, multiplied by this (nats)."
    )


class EncoderStage(Stage):
    """Free text to weights `w_p = g(text)`, with everything else frozen."""

    stage: Literal["encoder"]
    hidden_size: int = Field(64, ge=1, description="Width of the encoder's hidden layer.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout on the encoder's input and hidden layer.")


class LoraStage(Stage):
    """What the stages have that train LoRA weights."""

    batch_size: int = Field(8, ge=1, description="Preference pairs in one forward pass; several processes divide them.")
    accumulation_steps: int = Field(1, ge=1, description="Forward passes in one optimiser step.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate of AdamW (cosine, after warm-up).")
    beta: float = Field(0.1, gt=0, description="Loss temperature b in -log sigmoid(b * margin).")
    lora_rank: int = Field(16, ge=1, description="Rank of the LoRA weights.")
    lora_alpha: float = Field(32, gt=0, description="LoRA weights are multiplied by alpha / rank.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on what the LoRA weights read.")
    target_modules: list[str] | Literal["all-linear"] = Field(
        "all-linear", description="Modules that get LoRA weights; all-linear: every linear layer of the body."
    )
    gradient_checkpointing: bool = Field(False, description="Less memory, about a third more time.")
    save_every: int = Field(50, ge=1, description="Steps between checkpoints from which a killed run goes on.")


class AdapterStage(LoraStage):
    """The paper's step 1: LoRA on the backbone with w_p = 1."""

    stage: Literal["adapter"]


class JointStage(LoraStage):
    """LoRA and preference heads together."""

    stage: Literal["joint"]
    heads_learning_rate: float = Field(5e-3, gt=0, description="Peak learning rate of the preference heads.")


AnyStage = Annotated[AdapterStage | HeadsStage | DistilStage | EncoderStage | JointStage, Field(discriminator="stage")]


# Key to its only value, and what to do instead of another.
_REMOVED: dict[str, tuple[Any, str]] = {
    "shard_backbone": (False, "to spread a backbone over GPUs, set backbone.device_map: auto"),
    "conditioning": ("heads", "only preference heads are trained; for free text add an `encoder` stage"),
    "report_to": ([], "report.json beside the reward model has the history of every stage"),
}


class CompareSettings(Settings):
    """After training on pairs that a model wrote: guided decoding against the instruction in the prompt."""

    prompts: int = Field(8, ge=2, description="Prompts that training did not use, asked under every principle.")
    guidance_weight: float = Field(2.0, gt=0, description="Guidance weight of the steered answers.")
    prompted_weight: float = Field(1.0, gt=0, description="The same where the instruction is in the prompt as well.")
    decoding: DecodingSettings = Field(
        default_factory=lambda: DecodingSettings(temperature=0.7, candidates=50, max_new_tokens=48),
        description="How to decode.",
    )


class TrainRecipe(Settings):
    kind: Literal["train-rm"]
    output: str = Field(description="Directory of the run; the reward model is written here.")
    backbone: ModelSettings = Field(description="The language model under the reward model.")
    data: DataSettings = Field(description="The preference pairs.")
    heads: HeadSettings = Field(default_factory=lambda: HeadSettings(), description="The preference heads.")
    stages: list[AnyStage] = Field(min_length=1, description="Training stages, in order.")
    compare: CompareSettings | None = Field(
        None, description="For `source: contrast`: measure what the reward model does beside the instruction."
    )
    exact_vocabulary: int = Field(8192, ge=0, description="Largest vocabulary over which the loss normalises exactly.")
    normaliser_tokens: int = Field(
        64,
        ge=1,
        description="Above it: the reference's likeliest tokens of the corpus, per position, plus the realised.",
    )
    cache_dtype: Literal["float32", "bfloat16"] = Field("float32", description="Dtype of cached hidden states.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")

    @model_validator(mode="before")
    @classmethod
    def _without_removed_keys(cls, content: Any) -> Any:
        """Recipes that version 0.1 wrote hold every key; one that is gone may only have its default.

        `principles` at the top is short for `heads.principles`.
        """
        if not isinstance(content, Mapping):
            return content
        if "principles" in content:
            heads = content.get("heads") or {}
            if not isinstance(heads, Mapping) or heads.get("principles") is not None:
                raise ValueError("give `principles` or `heads.principles`, not both")
            content = {**content, "heads": {**heads, "principles": content["principles"]}}
            del content["principles"]
        for key, (default, instead) in _REMOVED.items():
            if content.get(key, default) != default:
                raise ValueError(f"`{key}` is gone: {instead}")
        return {key: value for key, value in content.items() if key not in _REMOVED}

    @model_validator(mode="after")
    def _consistent(self) -> TrainRecipe:
        names = [stage.stage for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("each stage may occur once")
        if self.compare is not None and self.data.source != "contrast":
            raise ValueError("`compare` needs pairs that a model writes: `data.source: contrast`; else `compare: null`")
        if self.compare is not None and not self.data.validation_share:
            raise ValueError("`compare` needs prompts that training holds out: set `data.validation_share`")
        if "distil" in names and {"adapter", "joint"} & set(names[: names.index("distil")]):
            raise ValueError("`distil` needs a backbone without LoRA weights: put it before `adapter` and `joint`")
        if "encoder" in names and not {"heads", "distil", "joint"} & set(names[: names.index("encoder")]):
            raise ValueError("the `encoder` stage needs a `heads`, `distil` or `joint` stage before it")
        return self
