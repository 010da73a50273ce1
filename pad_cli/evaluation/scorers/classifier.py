"""Scores from sequence classifiers and reward models of transformers, and the published ones of the paper by name.

    score = (activation(logits)[label] - mean) / sd

`helpful`, `harmless` and `humor` are the reward models of Rewards-in-Context (arXiv 2402.10207), which the paper's
tables use; means and standard deviations are those of RiC's data. In that code (github.com/YangRui2015/RiC,
ppo/multi_reward_models.py and ppo/utils.py) the first two read a text pair, the conversation as
"\\n\\nHuman: ... \\n\\nAssistant:" and then the answer, and their one logit is the score; the third reads the answer
alone, and its score is the logit of its second class, the positive one.

`armorm` is ArmoRM (arXiv 2406.12845): nineteen dimensions, read from its chat template at the last token. Its
repository's code does not run with transformers 5, and none of it is needed: the dimensions are one linear layer on a
plain Llama. (The authors of PAD take the same numbers, `output.rewards[0][dimension]` of that code.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from pad_cli.errors import RecipeError, did_you_mean
from pad_cli.evaluation.contract import HINT, Answer, EvalContext, Score, Scorer
from pad_cli.evaluation.scorers.classifier_model import (
    Classifier,
    check_template,
    file_state,
    fill_template,
    load_classifier,
)
from pad_cli.recipe.settings import Settings, read_options

_COMMIT = re.compile(r"[0-9a-f]{40}")


class ClassifierOptions(Settings):
    model: str = Field(description="Directory or hub id of a sequence classifier.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    label: str | Annotated[int, Field(ge=0)] | None = Field(
        None, description="Which of its outputs is the score, by name or number; not needed if there is one."
    )
    labels: list[str] = Field(default_factory=list, description="Names of its outputs, if it does not name them.")
    template: str | tuple[str, ...] = Field(
        "auto",
        description="How prompt and answer are given: chat, pair, answer, hh, a text with {prompt} and {answer} in it, "
        "or a list of two such texts; auto is the chat template if the tokenizer has one, else pair.",
    )
    activation: Literal["none", "sigmoid", "softmax"] = Field("none", description="Applied to its logits.")
    mean: float = Field(0.0, description="Subtracted from the score.")
    sd: float = Field(1.0, gt=0, description="What the score is then divided by.")
    max_tokens: int | None = Field(
        None, ge=2, description="Longest text; by default what the model can read. A longer one loses its end."
    )
    dimension: str = Field("", description="What it measures; by default the label.")
    higher_is_better: bool = Field(True, description="Its direction.")
    unit: str = Field("", description="Of its number.")
    batch_size: int = Field(16, ge=1, description="Answers scored together.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="Of the weights.")
    device: str = Field("auto", description="`auto` (where the policy is), `cpu`, `cuda`, `cuda:1`, `mps`.")
    head: str | None = Field(
        None, description="Name of the last linear layer in the checkpoint of a decoder that does not call it `score`."
    )
    trust_remote_code: bool = Field(
        False, description="Run the code that comes with the model; needs the full hash of a commit as `revision`."
    )

    @model_validator(mode="after")
    def _checked(self) -> ClassifierOptions:
        check_template(self.template)
        if self.trust_remote_code and not _COMMIT.fullmatch(self.revision or ""):
            raise ValueError(
                "`trust_remote_code` runs somebody's code on this machine: give `revision`, the full hash of a commit "
                "that you have read"
            )
        if self.head is not None and not self.labels:
            raise ValueError("`head` needs `labels`, the names of that layer's outputs")
        if self.labels:
            self.position(self.labels)
        return self

    def position(self, names: Sequence[str]) -> int:
        """The number of the score among a classifier's outputs.

        Raises:
            ValueError: there is no such output, or none is named and there are several.
        """
        if self.label is None and len(names) == 1:
            return 0
        if isinstance(self.label, int) and self.label < len(names):
            return self.label
        if isinstance(self.label, str) and self.label in names:
            return names.index(self.label)
        known = f"it has {len(names)}: {', '.join(names)}"
        if self.label is None:
            raise ValueError(f"`label` says which output is the score; {known}")
        close = did_you_mean(str(self.label), names)
        raise ValueError(f"`label` {self.label!r} is no output of the classifier; {known}. {close}".rstrip())


@dataclass(frozen=True, kw_only=True)
class ClassifierScorer(Scorer):
    """A classifier as a scorer; loaded when the first answer is scored."""

    options: ClassifierOptions

    def key(self, context: EvalContext) -> Any:
        of_no_effect = {"dimension", "higher_is_better", "unit", "batch_size", "device"}
        return ["classifier", self.options.model_dump(exclude=of_no_effect), file_state(self.options.model)]

    def score(self, answers: Sequence[Answer], context: EvalContext) -> list[Score]:
        """Scores of some answers.

        Raises:
            ModelLoadError: the classifier cannot be loaded.
            RecipeError: it has no such output.
        """
        options, classifier = self.options, self._loaded(context)
        texts = [
            fill_template(options.template, classifier.tokenizer, answer.item.prompt, answer.text) for answer in answers
        ]
        readings = classifier.read(texts, options.max_tokens)
        logits = torch.tensor([reading.logits for reading in readings], dtype=torch.float64)
        if options.activation == "sigmoid":
            logits = logits.sigmoid()
        elif options.activation == "softmax":
            logits = logits.softmax(-1)
        values = logits[:, self._position(classifier, logits.shape[1])].tolist()
        return [
            Score((value - options.mean) / options.sd, reading.truncated)
            for value, reading in zip(values, readings, strict=True)
        ]

    def _loaded(self, context: EvalContext) -> Classifier:
        options = self.options
        return load_classifier(
            options.model,
            options.revision,
            options.dtype,
            str(context.policy.device) if options.device == "auto" else options.device,
            options.head,
            len(options.labels),
            options.trust_remote_code,
        )

    def _position(self, classifier: Classifier, outputs: int) -> int:
        names = self.options.labels or classifier.labels
        try:
            # a model with code of its own may have other outputs than its configuration names
            return self.options.position(names if len(names) == outputs else [str(n) for n in range(outputs)])
        except ValueError as error:
            raise RecipeError(
                f"scorers: options of 'classifier': {error}.", f"The classifier is {self.options.model}."
            ) from error


def classifier(**options: Any) -> Scorer:
    """A sequence classifier as a scorer. Options: see `ClassifierOptions`.

    Raises:
        RecipeError: an option is wrong.
    """
    read = read_options(ClassifierOptions, options, "scorers: options of a classifier", HINT)
    output = "" if read.label is None else f", output {read.label}"
    return ClassifierScorer(
        description=f"score of the classifier {read.model}{output}",
        dimension=read.dimension or str(read.label or read.model),
        higher_is_better=read.higher_is_better,
        unit=read.unit,
        batch_size=read.batch_size,
        options=read,
    )


ARMORM_DIMENSIONS = (
    *(f"helpsteer-{name}" for name in ("helpfulness", "correctness", "coherence", "complexity", "verbosity")),
    *(f"ultrafeedback-{name}" for name in ("overall_score", "instruction_following", "truthfulness", "honesty")),
    *("ultrafeedback-helpfulness", "beavertails-is_safe", "prometheus-score", "argilla-overall_quality"),
    *("argilla-judge_lm", "code-complexity", "code-style", "code-explanation", "code-instruction-following"),
    "code-readability",
)
"""The outputs of ArmoRM in their order, as its model card has them."""

_GPT2 = "Ray2333/gpt2-large-{}-reward_model"
HELPFUL = partial(
    classifier, model=_GPT2.format("helpful"), template="hh", mean=-0.01500361, sd=1.40736504, dimension="helpful"
)
"""The helpfulness reward model of Rewards-in-Context, which the paper's tables use."""
HARMLESS = partial(
    classifier, model=_GPT2.format("harmless"), template="hh", mean=-0.94732502, sd=1.92034349, dimension="harmless"
)
"""The harmlessness reward model of Rewards-in-Context, which the paper's tables use."""
HUMOR = partial(
    classifier, model="mohameddhiab/humor-no-humor", label=1, template="answer", max_tokens=512, dimension="humorous"
)
"""The humour classifier of Rewards-in-Context, which the paper's tables use."""
ARMORM = partial(
    classifier,
    model="RLHFlow/ArmoRM-Llama3-8B-v0.1",
    revision="eb2676d20da2f2d41082289d23c59b9f7427f955",
    labels=list(ARMORM_DIMENSIONS),
    head="regression_layer",
    template="chat",
    dtype="bfloat16",
)
"""One of the nineteen dimensions of ArmoRM."""
