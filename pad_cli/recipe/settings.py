"""What all recipes share: the strict base class, language models, decoding, and options of registered things."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError, model_validator

from pad_cli.errors import RecipeError, did_you_mean

Options = TypeVar("Options", bound=BaseModel)
Made = TypeVar("Made")


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    def _one_placement(self) -> ModelSettings:
        if self.device_map is not None and self.device != "auto":
            raise ValueError("give either `device` or `device_map`")
        return self

    @model_validator(mode="after")
    def _packed_once(self) -> ModelSettings:
        if self.quantization is not None and self.model.endswith(".gguf"):
            raise ValueError("`quantization` cannot pack a GGUF file: leave it out, or name the model's own weights")
        return self


Always = dict[str, Annotated[float, Field(gt=0)]]
"""The minimum weights of a recipe: principle to the least weight it has."""


class DecodingSettings(Settings):
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


def read_options(kind: type[Options], options: Mapping[str, Any], where: str, hint: str) -> Options:
    """The `options` of a recipe, checked against a model of them.

    Args:
        kind: the options there are.
        options: the recipe's.
        where: put in front of every problem, for example `scorers: options of 'classifier'`.
        hint: where to read about them.

    Raises:
        RecipeError: with all problems at once.
    """
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        raise _refused(where, _problems(kind, error), hint) from error


def make_with(entry: Callable[..., Made], options: Mapping[str, Any], where: str, hint: str) -> Made:
    """Call a registered callable with the `options` of a recipe, checked against its signature and annotations.

    What the callable raises itself is let through. For the arguments see `read_options`.

    Raises:
        RecipeError: an option is unknown, missing, or of the wrong type.
    """
    parameters = inspect.signature(entry).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if unknown := [name for name in options if name not in parameters and not takes_any]:
        raise _refused(where, (_unknown(name, parameters) for name in unknown), hint)
    try:
        inspect.signature(entry).bind(**options)
    except TypeError as error:
        raise _refused(where, [str(error)], hint) from error
    if problems := list(_wrong_types(entry, options)):
        raise _refused(where, problems, hint)
    return entry(**options)


def _wrong_types(entry: Callable[..., Any], options: Mapping[str, Any]) -> Iterator[str]:
    """One line for each option that does not match its annotation; what cannot be checked passes."""
    plain_class = isinstance(entry, type) and not is_dataclass(entry)
    try:
        hints = get_type_hints(entry.__init__ if plain_class else entry)
    except (NameError, TypeError):  # names that only type checkers import; objects without annotations
        return
    for option in (name for name in options if name in hints):
        try:
            TypeAdapter(hints[option]).validate_json(json.dumps(options[option], default=str), strict=True)
        except PydanticUserError:  # a type that pydantic does not know
            continue
        except ValidationError as error:
            problem, *others = error.errors()
            reason = f"'{option}' has the wrong form" if others else f"{option}: {problem['msg']}"
            yield f"{reason} (found {options[option]!r})"


def _problems(kind: type[BaseModel], error: ValidationError) -> Iterator[str]:
    """One line for each option: a value that may have several forms fails once for each of them."""
    by_option: dict[str, list[Any]] = {}
    for problem in error.errors():
        by_option.setdefault(str(problem["loc"][0]) if problem["loc"] else "", []).append(problem)
    for option, (problem, *others) in by_option.items():
        if problem["type"] == "extra_forbidden":
            yield _unknown(option, kind.model_fields)
        elif problem["type"] == "missing":
            yield f"'{option}' is missing. {kind.model_fields[option].description}"
        elif others:
            yield f"'{option}' has the wrong form. {kind.model_fields[option].description}"
        else:
            reason = problem["msg"].removeprefix("Value error, ")
            yield f"{option}: {reason} (found {problem['input']!r})" if option else reason


def _unknown(option: str, known: Iterable[str]) -> str:
    return f"there is no option '{option}'. {did_you_mean(option, known)}".rstrip()


def _refused(where: str, problems: Iterable[str], hint: str) -> RecipeError:
    return RecipeError("\n".join(f"{where}: {problem}" for problem in problems), hint)
