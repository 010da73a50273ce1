"""What recipes share: the strict base class, language models, servers, decoding, options of registered things."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, TypeVar, get_type_hints
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from pad_cli.errors import RecipeError
from pad_cli.system.checked_yaml import describe

Options = TypeVar("Options", bound=BaseModel)
Made = TypeVar("Made")


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def named(key: str) -> BeforeValidator:
    """A name alone is short for `{key: name}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class ModelSettings(Settings):
    model: str = Field(
        description="Directory, GGUF file, hub id (`owner/name`, `owner/name/file.gguf`), or `embedded/NAME` of the "
        "embedded world."
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Of the loaded weights. auto is the checkpoint's own where the device is fast in it (`pad doctor` "
        "says what is chosen here): else float32 on a CPU, float16 on a GPU. GGUF files: float32.",
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`; auto takes the first GPU.")
    device_map: (
        Literal["auto", "balanced", "balanced_low_0", "sequential"]
        | Annotated[dict[str, str | Annotated[int, Field(ge=0)]], Field(min_length=1)]
        | None
    ) = Field(None, description="Spread over several devices: `auto`, `balanced`, or module name to device.")
    quantization: Literal["4bit", "8bit"] | None = Field(None, description="Bits of the body's weights (bitsandbytes).")
    attention: str | None = Field(
        None, min_length=1, description="`sdpa`, `eager`, `flash_attention_2`; by default what transformers chooses."
    )

    @model_validator(mode="after")
    def _consistent(self) -> ModelSettings:
        if self.device_map is not None and self.device != "auto":
            raise ValueError("give either `device` or `device_map`")
        if self.quantization is not None and self.model.endswith(".gguf"):
            raise ValueError("`quantization` cannot pack a GGUF file: leave it out, or name the model's own weights")
        return self


Always = dict[str, Annotated[float, Field(gt=0)]]
"""The minimum weights of a recipe: principle to the least weight it has."""


class DecodingSettings(Settings):
    guidance_weight: float = Field(1.0, description="Multiplier of the reward when decoding; 0 is plain decoding.")
    candidates: int = Field(10, ge=1, description="C: the policy's top tokens that compete at each step.")
    reward_ngram: int = Field(
        2, ge=0, description="Rewards of tokens that repeat an n-gram of this length are capped; 0: never."
    )
    plausibility: float = Field(
        0.0, ge=0, le=1, description="Guided, take only tokens at least this share as likely as the policy's likeliest."
    )
    max_new_tokens: int = Field(128, ge=1, description="Longest answer (tokens).")
    temperature: float = Field(0.0, ge=0, description="0 takes the best candidate; above, sample at this temperature.")
    top_k: int = Field(0, ge=0, description="Sample from this many best candidates; 0 for all of them.")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample from the likeliest candidates that hold this much mass.")
    min_p: float = Field(0.0, ge=0, le=1, description="Sample from candidates at least this share of the best.")
    repetition_penalty: float = Field(1.0, gt=0, description="Penalty on the policy's logits of tokens already read.")
    no_repeat_ngram_size: int = Field(0, ge=0, description="The policy repeats no n-gram of this size; 0: off.")
    seed: int = Field(0, ge=0, description="Seed of sampling; each answer has its own stream.")
    batch_size: int = Field(64, ge=1, description="Answers decoded together.")
    path: Literal["auto", "fused", "paired", "separate"] = Field(
        "auto", description="How policy and reward model read the text; the result is the same."
    )
    draft_tokens: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = Field(
        "auto", description="Tokens that a small reward model drafts for the policy to verify at once; 0 for none."
    )
    policy_reads_preference: bool = Field(
        False, description="The policy reads the reward model's prompt, preference included."
    )

    @property
    def decisive(self) -> dict[str, Any]:
        """What answers are kept under: without a key that earlier versions lacked, unless it is used."""
        return self.model_dump(exclude=None if self.plausibility else {"plausibility"})


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http address; write for example http://localhost:8000/v1")
    return value


class EndpointSettings(Settings):
    """A language model behind a server that speaks OpenAI's protocol; its key stays in the environment."""

    model: str = Field(min_length=1, description="Name of the model, as its server knows it.")
    base_url: Annotated[str, AfterValidator(_address)] | None = Field(
        None, description="OpenAI-compatible address, with its /v1; by default $OPENAI_BASE_URL, else OpenAI's own."
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Of its sampling.")
    max_tokens: int = Field(64, ge=1, description="Longest reply (tokens), thinking included.")
    concurrency: int = Field(8, ge=1, le=256, description="Requests under way at once.")
    requests_per_minute: float | None = Field(None, gt=0, description="Most requests begun a minute, evenly spaced.")
    timeout: float = Field(120.0, gt=0, description="Longest wait for the next bytes of a reply (seconds).")
    attempts: int = Field(6, ge=1, le=20, description="Tries of one request before it counts as failed.")
    input_price: float | None = Field(None, ge=0, description="USD per million tokens read; null if not known.")
    output_price: float | None = Field(None, ge=0, description="USD per million tokens written; null if not known.")
    max_cost: float | None = Field(None, gt=0, description="Most USD that all requests may cost.")

    @model_validator(mode="after")
    def _priced(self) -> EndpointSettings:
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("give both `input_price` and `output_price`, or neither")
        if self.max_cost is not None and self.input_price is None:
            raise ValueError("`max_cost` needs `input_price` and `output_price`")
        return self


def read_options(
    kind: type[Options], options: Mapping[str, Any], where: str, hint: str, *, strict: bool = False
) -> Options:
    """The `options` of a recipe, checked against a model of them; `strict` takes no text for a number, and the like.

    `where` stands in front of every problem, for example `scorers: options of 'classifier'`.

    Raises:
        RecipeError: with all problems at once.
    """
    try:
        if strict:  # as JSON, in which a list is also a tuple
            return kind.model_validate_json(json.dumps(dict(options), default=str), strict=True)
        return kind.model_validate(dict(options))
    except ValidationError as error:
        problems = [(".".join(map(str, each["loc"])), describe(each, kind.model_fields)) for each in error.errors()]
        lines = [": ".join(filter(None, (where, *problem))) for problem in problems]
        raise RecipeError("\n".join(lines), hint) from error


def make_with(entry: Callable[..., Made], options: Mapping[str, Any], where: str, hint: str) -> Made:
    """Call a registered callable with the `options` of a recipe, checked against its signature and annotations.

    What the callable raises itself is let through. For the arguments see `read_options`.

    Raises:
        RecipeError: an option is unknown, missing, or of the wrong type.
    """
    read_options(_model_of(entry), options, where, hint, strict=True)
    return entry(**options)


def _model_of(entry: Callable[..., Any]) -> type[BaseModel]:
    """The options that a callable takes, as a model; where there is no annotation, anything passes."""
    parameters = inspect.signature(entry).parameters.values()
    plain_class = isinstance(entry, type) and not is_dataclass(entry)
    hints: dict[str, Any] = {}
    with contextlib.suppress(NameError, TypeError):  # names that only type checkers import; no annotations
        hints = get_type_hints(entry.__init__ if plain_class else entry, include_extras=True)
    fields: dict[str, Any] = {
        each.name: (hints.get(each.name, Any), ... if each.default is each.empty else each.default)
        for each in parameters
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    }
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    config = ConfigDict(extra="allow" if takes_any else "forbid", arbitrary_types_allowed=True)
    return create_model("Options", __config__=config, **fields)
