"""Scores from sequence classifiers and reward models of transformers, and the published ones of the paper by name.

    score = (activation(logits)[label] - mean) / sd

A template says in what form the classifier reads a prompt and an answer:

`chat`      the classifier's chat template, the answer as the assistant's last turn
`pair`      two texts: the prompt, and the answer
`answer`    the answer alone
`hh`        two texts: "\\n\\nHuman: PROMPT \\n\\nAssistant:", as HH-RLHF spells conversations, and the answer
`auto`      `chat` if there is a chat template, else `pair`

`helpful`, `harmless` and `humor` are the reward models of Rewards-in-Context (arXiv 2402.10207), which the paper's
tables use; means and standard deviations are those of RiC's data (github.com/YangRui2015/RiC, ppo/utils.py). The first
two read the form `hh`, and their one logit is the score; the third reads the answer alone, and its score is the logit
of its second class, the positive one.

`armorm` is ArmoRM (arXiv 2406.12845): nineteen dimensions, read from its chat template at the last token. Its
repository's code does not run with transformers 5, and none of it is needed: the dimensions are one linear layer on a
plain Llama. (The authors of PAD take the same numbers, `output.rewards[0][dimension]` of that code.)
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from pad_cli.errors import ModelLoadError, PadError, RecipeError, did_you_mean
from pad_cli.evaluation.contract import HINT, Answer, EvalContext, Score, Scorer
from pad_cli.models.dtype import choose_dtype
from pad_cli.models.language_model import context_length
from pad_cli.models.loading import own_dtype, quiet_transformers
from pad_cli.models.prompts import render
from pad_cli.recipe.settings import Settings, read_options
from pad_cli.records import Messages
from pad_cli.system.offline import hub_hint
from pad_cli.system.progress import stage

_HH_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
_HEAD = "score"  # what transformers calls the last linear layer of a decoder that classifies


class ClassifierSource(Settings):
    """What decides how a classifier is loaded."""

    model: str = Field(description="Directory or hub id of a sequence classifier.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    labels: tuple[str, ...] = Field((), description="Names of its outputs, if it does not name them.")
    head: str | None = Field(
        None, description="Name of the last linear layer in the checkpoint of a decoder that does not call it `score`."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="Of the weights.")
    device: str = Field("auto", description="`auto` (where the policy is), `cpu`, `cuda`, `cuda:1`, `mps`.")


class ClassifierOptions(ClassifierSource):
    label: str | Annotated[int, Field(ge=0)] | None = Field(
        None, description="Which of its outputs is the score, by name or number; not needed if there is one."
    )
    template: Literal["auto", "chat", "pair", "answer", "hh"] = Field(
        "auto", description="How prompt and answer are given; auto is the tokenizer's chat template, else pair."
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

    @model_validator(mode="after")
    def _checked(self) -> ClassifierOptions:
        if self.head is not None and not self.labels:
            raise ValueError("`head` needs `labels`, the names of that layer's outputs")
        if self.labels:
            self.position(self.labels)
        return self

    def position(self, names: Sequence[str]) -> int:
        """The number of the score among a classifier's outputs; RecipeError if there is none, or no single one."""
        if self.label is None and len(names) == 1:
            return 0
        if isinstance(self.label, int) and self.label < len(names):
            return self.label
        if isinstance(self.label, str) and self.label in names:
            return names.index(self.label)
        wrong = f"{self.label!r} is no output of the classifier" if self.label else "says which output is the score"
        close = did_you_mean(str(self.label), names) if self.label else ""
        reason = f"`label` {wrong}; it has {len(names)}: {', '.join(names)}. {close}".rstrip()
        raise RecipeError(f"scorers: options of 'classifier': {reason}", f"The classifier is {self.model}.")


class Text(NamedTuple):
    """What is tokenized, as arguments of the tokenizer."""

    text: str
    text_pair: str | None = None
    add_special_tokens: bool = True


def fill_template(template: str, tokenizer: Any, prompt: Messages, answer: str) -> Text:
    """A prompt and an answer in the form of a template.

    Raises:
        ModelLoadError: the template is `chat`, and the tokenizer has none.
        DataError: the chat template refuses the conversation.
    """
    if template == "auto":
        template = "chat" if tokenizer.chat_template else "pair"
    if template == "answer":
        return Text(answer)
    if template == "chat":
        if not tokenizer.chat_template:
            raise ModelLoadError(
                "The classifier's tokenizer has no chat template.", "Give it one, or name another `template`: pair, hh."
            )
        conversation = (*prompt, {"role": "assistant", "content": answer})
        return Text(render(tokenizer, conversation, prompt=False), add_special_tokens=False)
    if template == "hh":
        turns = ((_HH_SPEAKERS.get(turn["role"], turn["role"].title()), turn["content"].strip()) for turn in prompt)
        spelled = "".join(f"\n\n{speaker}: {content}" for speaker, content in turns)
        return Text(f"{spelled} \n\nAssistant:", answer)
    return Text("\n\n".join(message["content"] for message in prompt), answer)


Reading = tuple[list[float], bool]
"""A classifier's outputs for one text, and whether it read only a part of it."""


@dataclass(frozen=True)
class Classifier:
    """A transformers model, its tokenizer and padding token, and its readings: a text is read once for all outputs."""

    model: Any
    tokenizer: Any
    padding: int | None
    readings: dict[tuple[Text, int], Reading] = field(default_factory=dict)

    def read(self, texts: Sequence[Text], max_tokens: int | None) -> list[Reading]:
        """Read one batch of texts; a long one is cut at its end (of a pair, the longer text is).

        Raises:
            ValueError: a text has no tokens.
        """
        longest = int(min(self.tokenizer.model_max_length, context_length(self.model) or sys.maxsize))
        limit = min(max_tokens or longest, longest)
        new = list(dict.fromkeys(text for text in texts if (text, limit) not in self.readings))
        if new:
            whole = [self.tokenizer(**text._asdict(), verbose=False) for text in new]
            if not all(row["input_ids"] for row in whole):
                raise ValueError("a text without tokens")
            cut = [self.tokenizer(**text._asdict(), truncation=True, max_length=limit) for text in new]
            for text, logits, row, read in zip(new, self._forward(cut), whole, cut, strict=True):
                self.readings[text, limit] = logits, len(read["input_ids"]) < len(row["input_ids"])
        return [self.readings[text, limit] for text in texts]

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Mapping[str, list[int]]]) -> list[list[float]]:
        """Logits of a batch, padded on the right: a causal model never sees the padding, others have the mask."""

        def padded(rows: Sequence[list[int]], value: int) -> torch.Tensor:
            return pad_sequence([torch.tensor(row) for row in rows], True, value).to(self.model.device)

        ids = [row["input_ids"] for row in rows]
        inputs = {
            "input_ids": padded(ids, self._padding_of(ids)),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
        }
        if "token_type_ids" in rows[0] and getattr(self.model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = padded([row["token_type_ids"] for row in rows], 0)
        logits: list[list[float]] = self.model(**inputs).logits.float().tolist()
        return logits

    def _padding_of(self, rows: Sequence[list[int]]) -> int:
        """The padding token; a decoder's score is read at the last token that is another one.

        A model without a padding token gets one that these rows do not contain. The end of sequence, which is often
        used instead, may be the very token that the score is read at.
        """
        if self.padding is not None:
            return self.padding
        used = {token for row in rows for token in row}
        free = next(token for token in itertools.count() if token not in used)
        self.model.config.get_text_config().pad_token_id = free
        return free


@functools.lru_cache(maxsize=1)
def load_classifier(source: ClassifierSource) -> Classifier:
    """Load a classifier; the last one stays in memory, because scorers that share it follow each other.

    Raises:
        ModelLoadError: it is missing, damaged, or no trained classifier.
    """
    location = {"pretrained_model_name_or_path": source.model, "revision": source.revision, "trust_remote_code": False}
    options: dict[str, Any] = {"dtype": getattr(torch, source.dtype, None)}
    if source.head is not None:
        options["key_mapping"] = {rf"^{re.escape(source.head)}\.": f"{_HEAD}."}
    if source.labels:
        options["num_labels"] = len(source.labels)
    try:
        with stage(f"Loading {source.model}"), quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(**location)
            if source.dtype == "auto":
                own = own_dtype(AutoConfig.from_pretrained(**location))
                options["dtype"] = "auto" if own is None else choose_dtype(own, torch.device(source.device)).dtype
            network, report = AutoModelForSequenceClassification.from_pretrained(
                **location, **options, output_loading_info=True
            )
            network = network.eval().requires_grad_(False).to(source.device)
    except PadError:
        raise
    except Exception as error:  # a damaged file may raise anything, a tokenizer's a bare Exception
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        hint = "It needs config.json, safetensors weights and a tokenizer; a hub id needs the network."
        if not Path(source.model).exists():
            hint = hub_hint(hint, f"hf download {source.model}")
        raise ModelLoadError(f"Cannot load a classifier from '{source.model}': {reason}", hint) from error
    if missing := sorted(report["missing_keys"]):
        raise ModelLoadError(
            f"'{source.model}' is no trained classifier: it lacks {missing[0]}.",
            "Name a sequence classifier or reward model; `head` names its last layer if that has another name.",
        )
    return Classifier(network, tokenizer, network.config.get_text_config().pad_token_id)


def file_state(location: str) -> Any:
    """Names, sizes and times of the files of a local model, for a scorer's key; nothing for one on the hub.

    Scores of a model that has changed on the disk are no longer its scores; on the hub the revision is an option.
    """
    path = Path(location)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return [[file.name, (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files if file.is_file()]


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
        options = self.options
        source = options.model_dump(include=set(ClassifierSource.model_fields))
        if options.device == "auto":
            source["device"] = str(context.policy.device)
        classifier = load_classifier(ClassifierSource(**source))
        texts = [fill_template(options.template, classifier.tokenizer, item.prompt, text) for item, text, *_ in answers]
        rows, truncated = zip(*classifier.read(texts, options.max_tokens), strict=True)
        logits = torch.tensor(rows, dtype=torch.float64)
        if options.activation == "sigmoid":
            logits = logits.sigmoid()
        elif options.activation == "softmax":
            logits = logits.softmax(-1)
        names = options.labels or [name for _, name in sorted(classifier.model.config.id2label.items())]
        values = logits[:, options.position(names)].tolist()
        return [Score((value - options.mean) / options.sd, cut) for value, cut in zip(values, truncated, strict=True)]


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
