"""The source of preference pairs `contrast`: the language model that is to be steered writes them itself."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

from pydantic import Field

from pad_cli.contrast.answers import PLAIN, Prompt, Request, Teacher, ask, contrasts, select
from pad_cli.contrast.teachers import EndpointTeacher, PolicyTeacher
from pad_cli.errors import DataError, RecipeError
from pad_cli.evaluation.scorers.style import LabelledAnswers, ceilings
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.pairs import load_pairs, prompt_of, read_rows
from pad_cli.pairs.sources import prompt_key
from pad_cli.principles import NOT, instructions_of, principle_of, read_library
from pad_cli.recipe import DecodingSettings, EndpointSettings, Settings, TrainRecipe, read_options
from pad_cli.records import DataReport, PairData, PreferencePair, SourceReport
from pad_cli.system.resources import shipped
from pad_cli.system.runs import ResultLog, fingerprint, home, only_here

SOURCE = "contrast"
"""Its name in a recipe."""

_EVERYDAY = "everyday"
_WEAK = "the teacher cannot do it"
_PROMPTS, _PROMPTS_EACH = 48, 6  # without `limit`; the second for each principle
_FEW = 15  # answers; fewer do not say what a teacher can do
_TOLD_APART = 0.55  # share; half is guessed. At 80 answers .5 and .6 are mistaken for each other equally often


class ContrastOptions(Settings):
    """How answers are written and which of them stay."""

    prompts: str = Field(_EVERYDAY, description="Prompts that ship with pad, by name, or a JSONL file of them.")
    limit: int | None = Field(
        None, ge=2, description="Use at most this many prompts, drawn by seed; null: 48, and 6 more for each principle."
    )
    principles_per_prompt: int | None = Field(
        None, ge=1, description="Answer each prompt under this many principles, drawn in turn; null: under all."
    )
    opposites: bool = Field(False, description="Also write answers under the opposite of each principle.")
    temperature: float = Field(0.8, ge=0, description="Sampling temperature of the answers.")
    top_p: float = Field(0.95, gt=0, le=1, description="Sample from the likeliest tokens that hold this much mass.")
    max_tokens: int = Field(64, ge=1, description="Longest answer; a longer one ends with its last whole sentence.")
    min_contrast: float | None = Field(
        0.05, ge=0, description="Nats a token by which its instruction must make an answer likelier; null: any."
    )
    batch_size: int = Field(48, ge=1, description="Answers written together.")
    keep_weak: bool = Field(
        False, description="Train principles, too, whose answers can hardly be told from those without an instruction."
    )
    teacher: EndpointSettings | None = Field(
        None, description="Another model that answers, behind an OpenAI-compatible server; null: the backbone."
    )

    def of(self, model: LanguageModel, seed: int) -> Teacher:
        """The teacher."""
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "seed": seed, "batch_size": self.batch_size}
        if self.teacher is None:
            return PolicyTeacher(model, DecodingSettings(max_new_tokens=self.max_tokens, **sampling))
        return EndpointTeacher(
            self.teacher.model_copy(update={"temperature": self.temperature, "max_tokens": self.max_tokens}), seed
        )


@dataclass(frozen=True)
class ContrastSet:
    """Answers to prompts: of each prompt, the name under which an answer was written to its text."""

    answers: Mapping[Prompt, Mapping[str, str]]
    preferences: Mapping[str, Mapping[str, float]]  # of each name but `plain`: the preference that its answers show
    report: SourceReport  # its rows are answers
    left_out: Mapping[str, str] = field(default_factory=dict)  # principle that the teacher cannot do, to how it shows

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row for each prompt, in the pair format `per_preference` with `neutral: [plain]`."""
        for request, answers in self.answers.items():
            messages = Request(request, PLAIN, "").plain
            lone = len(messages) == 1
            yield {"prompt": messages[0]["content"] if lone else messages, "answers": dict(answers)}

    def pairs(self) -> Iterator[PreferencePair]:
        """Every answer wins under its own preference against the others to its prompt, the plain one among them."""
        for prompt, answers in self.answers.items():
            for winner, loser in permutations(answers, 2):
                if winner != PLAIN:
                    plain = Request(prompt, PLAIN, "").plain
                    yield PreferencePair(plain, self.preferences[winner], answers[winner], answers[loser])


def make_answers(
    principles: Sequence[str], options: ContrastOptions, load_backbone: Callable[[], LanguageModel], seed: int
) -> ContrastSet:
    """Write, filter and compare answers; what was written before is taken from `PAD_HOME`.

    Raises:
        DataError: a file is wrong, or the teacher can do none of the principles.
        PreferenceError: a principle is the misspelt name of a ready one.
        RecipeError: there is no principle.
    """
    if not principles:
        raise RecipeError(
            "data.source: `contrast` needs principles.", "For example: --set 'principles=[formal, pirate]'"
        )
    if PLAIN in principles:
        raise RecipeError(f"principles: answers without an instruction are called '{PLAIN}'.", "Give it another name.")
    told = instructions_of(principles, read_library())
    if not options.opposites:
        told = {name: told[name] for name in principles}
    preferences = {name: {name: 1.0} if name in principles else {name.removeprefix(NOT): -1.0} for name in told}
    prompts = _prompts(options, seed, len(principles))
    model = load_backbone()
    asked = _dealt(principles, len(prompts), options.principles_per_prompt or len(principles), seed)
    requests = []
    for prompt, dealt in zip(prompts, asked, strict=True):
        requests.append(Request(prompt, PLAIN, ""))
        requests += [
            Request(prompt, name, text) for name, text in told.items() if {name, name.removeprefix(NOT)} & dealt
        ]
    teacher = options.of(model, seed)
    report = SourceReport(SOURCE, "train", rows=len(requests))
    folder = home() / "contrast" / fingerprint(teacher.key)
    with only_here(folder):
        written = ask(requests, teacher, ResultLog(folder / "answers.jsonl"), report)
        kept = select(written, report)
        if options.min_contrast is not None:
            log = ResultLog(folder / "contrast.jsonl", needs=("nats",))
            kept = contrasts(kept, options.min_contrast, model, log, report)
    answers: dict[Prompt, dict[str, str]] = {prompt: {} for prompt in prompts}
    for request, text in kept.items():
        answers[request.prompt][request.name] = text
    left_out = _without_answers(answers, principles, report)
    if not options.keep_weak:
        left_out |= _like_plain(answers, [name for name in principles if name not in left_out])
    for prompt, of_prompt in answers.items():
        for name in [name for name in of_prompt if preferences.get(name, {}).keys() & left_out.keys()]:
            report.drop("row", f"{name}: {_WEAK}", Request(prompt, name, "").label)
            del of_prompt[name]
    for prompt, of_prompt in answers.items():
        if len(of_prompt) == 1:
            report.drop("row", f"{min(of_prompt)}: the only answer left to its prompt", Request(prompt, "", "").label)
    answers = {prompt: of_prompt for prompt, of_prompt in answers.items() if len(of_prompt) > 1}
    if not answers:
        why = "; ".join(f"{name}: {how}" for name, how in left_out.items())
        raise DataError(
            f"contrast: the teacher can do none of the principles ({why})",
            hint="Give clearer instructions in principles.yaml, or take a larger model.",
        )
    report.rows_used = report.rows - sum(entry.count for entry in report.dropped)
    return ContrastSet(answers, preferences, report, left_out)


def _dealt(principles: Sequence[str], prompts: int, each: int, seed: int) -> list[set[str]]:
    """For each prompt the `each` principles that answer it: those that have answered least, or drawn among them."""
    rng, dealt = random.Random(f"{seed} dealt"), list[set[str]]()
    answered = dict.fromkeys(principles, 0)
    for _ in range(prompts):
        order = sorted(principles, key=lambda name: (answered[name], rng.random()))
        dealt.append(set(order[:each]))
        answered.update((name, answered[name] + 1) for name in order[:each])
    return dealt


def _without_answers(
    answers: Mapping[Prompt, Mapping[str, str]], principles: Sequence[str], report: SourceReport
) -> dict[str, str]:
    """The principles of which no answer is left, and why."""
    left = {name for named in answers.values() for name in named}
    return {name: f"No answer is left: {_reasons(report, name)}" for name in principles if name not in left}


def _like_plain(answers: Mapping[Prompt, Mapping[str, str]], principles: Sequence[str]) -> dict[str, str]:
    """The principles whose answers look like those without an instruction, and how few can be told apart.

    A classifier of words judges the answers to some prompts by those to the others; half of them it would guess.
    """
    found = {}
    for name in principles:
        pairs = [(str(prompt), named) for prompt, named in answers.items() if {name, PLAIN} <= named.keys()]
        if len(pairs) < _FEW:
            continue
        both = [(named[of], of, prompt) for prompt, named in pairs for of in (name, PLAIN)]
        texts, names, prompts = (tuple(each) for each in zip(*both, strict=True))
        shares = ceilings(LabelledAnswers(texts, names, prompts))
        right = round(sum(share * names.count(of) for of, share in shares.items()))
        if right < _TOLD_APART * len(names):
            found[name] = f"The teacher cannot do it: {right} of {len(names)} answers told from plain ones"
    return found


def make_answers_of(recipe: TrainRecipe, load_backbone: Callable[[], LanguageModel] | None = None) -> ContrastSet:
    """The answers that a recipe trains on; `load_backbone` gives its backbone, where that may be loaded already.

    Raises:
        RecipeError: its pairs are from elsewhere; and what `make_answers` raises.
    """
    if recipe.data.source != SOURCE:
        raise RecipeError(f"data.source: only pairs of `{SOURCE}` can be made.", "See: pad recipe show from-model")
    options = _read(recipe.data.options)
    load = load_backbone or (lambda: load_language_model(recipe.backbone))
    return make_answers(recipe.heads.principles or (), options, load, recipe.seed)


def held_out_answers(recipe: TrainRecipe, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows that training has not seen: those of the prompts that it held out, and `count` further prompts.

    Raises:
        RecipeError: nothing is held out, or there are no further prompts.
    """
    load_backbone = functools.cache(lambda: load_language_model(recipe.backbone))
    made, options = make_answers_of(recipe, load_backbone), _read(recipe.data.options)
    data = load_pairs(recipe.data, recipe.seed, recipe.heads.principles, load_backbone)
    trained = {prompt_key(pair.prompt) for pair in data.train}
    rows = [row for prompt, row in zip(made.answers, made.rows(), strict=True) if prompt not in trained]
    used = len(_prompts(options, recipe.seed, len(recipe.heads.principles or ())))
    further = _prompts(options.model_copy(update={"limit": used + count}), recipe.seed)[used:]
    if not rows or len(further) < count:
        raise RecipeError(
            f"compare: there are {len(rows)} prompts held out, and {len(further)} that nobody has used.",
            "Set data.validation_share, and data.options.limit lower than the number of prompts.",
        )
    return rows, [{"prompt": Request(prompt, PLAIN, "").plain} for prompt in further]


def load_contrast(
    *, seed: int, principles: Sequence[str] | None, load_backbone: Callable[[], LanguageModel], **options: Any
) -> PairData:
    """Pairs that the language model writes itself, under the instruction of each principle.

    `options` are those of `ContrastOptions`; raises as `make_answers`.
    """
    made = make_answers(principles or (), _read(options), load_backbone, seed)
    pairs = tuple(made.pairs())
    made.report.pairs_made = made.report.pairs_kept = len(pairs)
    library = read_library()
    texts = {name: principle_of(name, library).wordings for name in principles or ()}
    return PairData(pairs, (), texts, DataReport((made.report,)), made.left_out)


def _read(options: Mapping[str, Any]) -> ContrastOptions:
    return read_options(ContrastOptions, options, "data.options", f"See docs/training.md for what `{SOURCE}` takes.")


def _prompts(options: ContrastOptions, seed: int, principles: int = 0) -> list[Prompt]:
    """Distinct prompts, as (role, content) of each message, in an order drawn by the seed."""
    own = shipped("data") / "prompts" / f"{options.prompts}.jsonl"
    path = own if own.is_file() else Path(options.prompts)
    read = [prompt_of(row) for row in read_rows(path)]
    if not read:
        raise DataError("the file has no rows", path=path, hint="One JSON object with a `prompt` a line.")
    prompts = list(dict.fromkeys(tuple((each["role"], each["content"]) for each in prompt) for prompt in read))
    random.Random(f"{seed} contrast").shuffle(prompts)
    return prompts[: options.limit or _PROMPTS + _PROMPTS_EACH * principles]


def _reasons(report: SourceReport, name: str) -> str:
    own = [(entry.count, entry.reason.partition(": ")) for entry in report.dropped]
    return ", ".join(f"{count} {reason}" for count, (of, _, reason) in own if of == name)
