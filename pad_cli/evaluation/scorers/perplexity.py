"""How surprising a language model finds an answer after its prompt: fluency, as far as that model knows it.

    log_perplexity(answer) = -1/T sum_t log pi(a_t | prompt, a_<t),     perplexity = exp(log_perplexity)

over the T tokens of the answer; its end of sequence is left out, because an answer that was cut off has none. A mean
of perplexities is ruled by its worst few answers: compare means of `log_perplexity`. The model is the policy that
answered, without guidance, or another one. The preference is not in the prompt that it reads.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pad_cli.evaluation.contract import EvalContext, Sample, Score, Scorer
from pad_cli.evaluation.scorers.identity import identity
from pad_cli.models.language_model import LanguageModel, load_language_model, resolve_model
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.scoring import TokenSequence, all_log_probs
from pad_cli.recipe import ModelSettings
from pad_cli.recipe.models import Settings
from pad_cli.recipe.options import read_options


def _named(value: Any) -> Any:
    """A model's name alone is short for `{model: name}`."""
    return {"model": value} if isinstance(value, str) else value


class PerplexityOptions(Settings):
    model: Annotated[ModelSettings | None, BeforeValidator(_named)] = Field(
        None, description="The model that reads: its name, or how it is loaded; by default the policy."
    )
    max_tokens: int | None = Field(
        None,
        ge=2,
        description="Longest prompt and answer together; by default what the model can read. The answer loses its end, "
        "then the prompt its beginning.",
    )
    batch_size: int = Field(64, ge=1, description="Answers scored together.")


@dataclass(frozen=True)
class Perplexity:
    """The scorer; `logarithmic` is its form in nats per token."""

    options: PerplexityOptions
    logarithmic: bool
    dimension: str = "fluency"
    higher_is_better: bool = False
    facts: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        what = "mean negative log-likelihood of a token" if self.logarithmic else "perplexity"
        return f"{what} of the answer under {'the policy' if self.options.model is None else self.options.model.model}"

    @property
    def unit(self) -> str:
        return "nats per token" if self.logarithmic else ""

    @property
    def batch_size(self) -> int:
        return self.options.batch_size

    def key(self, subject: EvalContext) -> Any:
        reader: Any = subject.policy.fingerprint
        if self.options.model is not None:
            reader = [self.options.model.model_dump(), identity(resolve_model(self.options.model.model))]
        return ["perplexity", self.logarithmic, self.options.max_tokens, reader]

    def score(self, samples: Sequence[Sample], subject: EvalContext) -> list[Score]:
        """Scores of some answers.

        Raises:
            ModelLoadError: the model cannot be loaded.
            ValueError: an answer is empty.
        """
        settings = self.options.model
        model = subject.policy if settings is None else _loaded(settings.model_dump_json())
        limit = min(self.options.max_tokens or sys.maxsize, model.context_length or sys.maxsize)
        whole = [_encoded(model, sample) for sample in samples]
        read = [_cut(prompt, answer, limit) for prompt, answer in whole]
        surprise = [
            -total / len(answer) for total, (_, answer) in zip(all_log_probs(model, read).tolist(), read, strict=True)
        ]
        return [
            Score(value if self.logarithmic else math.exp(value), truncated=kept != given)
            for value, kept, given in zip(surprise, read, whole, strict=True)
        ]


def perplexity(**options: Any) -> Scorer:
    """exp of the mean negative log-likelihood of an answer's tokens.

    Args:
        options: see `PerplexityOptions`.

    Raises:
        RecipeError: an option is wrong.
    """
    return _scorer("perplexity", options, logarithmic=False)


def log_perplexity(**options: Any) -> Scorer:
    """The mean negative log-likelihood of an answer's tokens, in nats.

    Args:
        options: see `PerplexityOptions`.

    Raises:
        RecipeError: an option is wrong.
    """
    return _scorer("log_perplexity", options, logarithmic=True)


def _scorer(name: str, options: Mapping[str, Any], *, logarithmic: bool) -> Scorer:
    where = f"scorers: options of '{name}'"
    read = read_options(PerplexityOptions, options, where, "See docs/evaluation.md for what it takes.")
    return Perplexity(read, logarithmic)


@functools.lru_cache(maxsize=1)
def _loaded(settings: str) -> LanguageModel:
    return load_language_model(ModelSettings.model_validate_json(settings))


def _encoded(model: LanguageModel, sample: Sample) -> TokenSequence:
    """Tokens of the prompt, and of the answer without its end of sequence."""
    if not sample.text.strip():
        raise ValueError("an empty answer has no likelihood")
    prompt = encode_prompt(model.tokenizer, sample.item.prompt)
    return tuple(prompt), tuple(encode_answer(model.tokenizer, sample.text)[:-1])


def _cut(prompt: tuple[int, ...], answer: tuple[int, ...], limit: int) -> TokenSequence:
    """What is read: at least one token of the prompt, at most `limit` of both."""
    answer = answer[: limit - 1]
    return prompt[-(limit - len(answer)) :], answer
