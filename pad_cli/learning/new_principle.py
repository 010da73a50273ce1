"""A principle that nobody trained, from a few pairs: one more head on a finished reward model, as a new version of it.

Backbone, adapter and the other heads stay as they are, and so do their rewards and what their wordings mean.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pad_cli.errors import DataError, PreferenceError, UsageError
from pad_cli.learning.new_head import Examples, FewShotSettings, held_out_margins, train_maps
from pad_cli.models.card import model_card
from pad_cli.models.checkpoint import CONFIG, load_reward_model, save_reward_model
from pad_cli.models.encoder import PreferenceEncoder, text_states
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.pairs.conversation import read_sample
from pad_cli.pairs.files import read_rows
from pad_cli.pairs.rows import Row, RowError, is_text, note_changes
from pad_cli.recipe import ModelSettings
from pad_cli.records import PreferencePair
from pad_cli.system.progress import note
from pad_cli.system.runs import check_output, fingerprint, hidden_states, whole_files, write_json, write_whole
from pad_cli.training.calibration import balance, strengths
from pad_cli.training.hidden_cache import build_hidden_cache
from pad_cli.training.metrics import Share, outcomes, share_of
from pad_cli.training.pair_table import SequenceBook, tabulate
from pad_cli.training.state_reader import StateReader
from pad_cli.training.token_rewards import TokenRewards

FEWEST = 4
"""Pairs that a new principle needs."""

_MAX_TOKENS = 1024  # of a prompt, and of an answer
_CANDIDATES = 64  # of the truncated normaliser
_WHOLE_VOCABULARY = 8192  # tokens up to which candidates are drawn from all of them
_SAME = 1 - 1e-4  # cosine from which two wordings are one
_HINT = (
    'Write {"prompt": "...", "chosen": "...", "rejected": "..."} a line: the chosen answer shows the principle, the '
    "rejected one does not."
)


@dataclass(frozen=True)
class NewPrinciple:
    """What to add to which reward model.

    Attributes:
        name: of the principle, as a preference will use it.
        examples: JSONL of prompt, chosen (shows the principle) and rejected (does not), at least four.
        reward_model: a directory, a registered source, or an id on the hub.
        out: directory of the new version; must not exist yet, unless it is this very version.
        paraphrases: other wordings of the principle, for a reward model that reads free text.
        training: of the head.
        seed: of everything random.
        device: of the backbone.
        overwrite: whether files in `out` may be replaced.
    """

    name: str
    examples: Path
    reward_model: str
    out: Path
    paraphrases: tuple[str, ...] = ()
    training: FewShotSettings = field(default_factory=FewShotSettings)
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False


@dataclass(frozen=True)
class AddedPrinciple:
    """What came of it.

    Attributes:
        directory: of the new version.
        name: of the principle.
        examples: how many pairs it was learned from.
        pair_accuracy: share of them that heads rank rightly which were trained on the others.
        margin: mean difference of the summed rewards in that cross-validation, nats.
        paraphrases: wordings that the preference encoder now knows, the name among them; 0 without an encoder.
        parent: fingerprint of the reward model that it was added to.
        seconds: that training and cross-validation took.
    """

    directory: Path
    name: str
    examples: int
    pair_accuracy: Share
    margin: float
    paraphrases: int
    parent: str
    seconds: float


def add_principle(settings: NewPrinciple) -> AddedPrinciple:
    """Train a head for a new principle, and write the reward model with it as a new version.

    Raises:
        DataError: the examples cannot be read, are too few, or contradict each other.
        UsageError: the name is taken or unusable, `out` holds something else, or the reward model has no heads.
        PreferenceError: a paraphrase words another principle already.
        CheckpointError, ModelLoadError, StorageError, TrainingError: see `pad_cli.errors`.
    """
    name = " ".join(settings.name.split())
    pairs = read_examples(settings.examples, name)
    found = inspect_reward_model(settings.reward_model)
    _check_name(name, found.config.get("principles") or ())
    model = load_reward_model(settings.reward_model, device=settings.device)
    if not isinstance(model, PersonalizedRewardModel):
        raise UsageError(
            f"'{settings.reward_model}' reads preferences in its prompt: it has no heads to add one to.",
            "Use one with preference heads; pad train-rm makes them unless the recipe says `conditioning: prompt`.",
        )
    wordings = tuple(dict.fromkeys([name, *(" ".join(text.split()) for text in settings.paraphrases)]))
    key = fingerprint(
        [
            model.fingerprint,
            name,
            [pair.content() for pair in pairs],
            wordings,
            asdict(settings.training),
            settings.seed,
        ]
    )
    if (kept := _finished(settings.out, key)) is not None:
        note(f"{settings.out} is finished; nothing to do.")
        return kept
    _check_free(settings)
    encoder = _extended(model, name, wordings)
    started = time.monotonic()
    head, margins = _train(model, name, pairs, settings)
    added = AddedPrinciple(
        settings.out,
        name,
        len(pairs),
        share_of(outcomes(margins)),
        round(margins.mean().item(), 4),
        0 if encoder is None else len(wordings),
        model.fingerprint,
        round(time.monotonic() - started, 2),
    )
    if added.pair_accuracy.low <= 0.5:
        note(
            f"Warning: {added.pair_accuracy.value:.0%} of the examples are told by the others, which may be chance: "
            f"they hardly say what '{name}' is. Give more of them, or pairs that differ in nothing else."
        )
    version = dataclasses.replace(model, heads=_joined(model.heads, head), encoder=encoder)
    version.details = _details(model.details, added, settings, wordings, key)
    _write(version, found.data, settings.out)
    return added


def read_examples(path: Path, name: str) -> tuple[PreferencePair, ...]:
    """The pairs of a file; a pair that occurs twice counts once.

    Raises:
        DataError: a row is wrong, there are fewer than four pairs, or some contradict each other.
    """
    lines: dict[tuple[Any, str, str], tuple[int, PreferencePair]] = {}
    rows = read_rows(path)
    for row in rows:
        try:
            pair = _read(row, name)
        except RowError as problem:
            raise problem.at(row) from problem
        prompt = tuple((message["role"], message["content"]) for message in pair.prompt)
        if (other := lines.get((prompt, pair.rejected, pair.chosen))) is not None:
            raise RowError(
                f"contradicts line {other[0]}: the same two answers the other way round",
                hint="Keep the row whose chosen answer shows the principle.",
            ).at(row)
        lines.setdefault((prompt, pair.chosen, pair.rejected), (row.number, pair))
    note_changes(rows)
    if len(lines) < FEWEST:
        raise DataError(f"a new principle needs at least {FEWEST} pairs, here are {len(lines)}", path=path, hint=_HINT)
    return tuple(pair for _, pair in lines.values())


def _read(row: Row, principle: str) -> PreferencePair:
    prompt, (chosen, rejected) = read_sample(row, [(name, row.values.get(name)) for name in ("chosen", "rejected")])
    if chosen.strip() == rejected.strip():
        raise RowError("both answers are the same", hint=_HINT)
    return PreferencePair(prompt, {principle: 1.0}, chosen, rejected, place=row.place)


def _check_name(name: str, principles: Sequence[str]) -> None:
    if not is_text(name) or not name.isprintable() or name.startswith("@") or name.lower().startswith("text:"):
        raise UsageError(f"{name!r} cannot be a principle's name.", "Use a word or two, like: inquisitive")
    if name.lower() in (known.lower() for known in principles):
        raise UsageError(
            f"This reward model knows '{name}' already.", "Choose another name, or add to a version without it."
        )


def _extended(model: PersonalizedRewardModel, name: str, wordings: Sequence[str]) -> PreferenceEncoder | None:
    """The encoder that knows the wordings as well; None where there is none."""
    if model.encoder is None:
        if len(wordings) > 1:
            note(f"This reward model reads no free text: '{name}' is found by its name only, not by paraphrases.")
        return None
    if not all(map(is_text, wordings)):
        raise PreferenceError("A paraphrase is empty.", "Write other words for the principle.")
    states = text_states(model.backbone, wordings)
    nearest = model.encoder.similarities(states).max(1)
    for text, cosine, place in zip(wordings, nearest.values.tolist(), nearest.indices.tolist(), strict=True):
        owner = int(model.encoder.owners[place])
        if cosine > _SAME:
            whose = f"words '{model.principles[owner]}'" if owner >= 0 else "has a meaning"
            raise PreferenceError(f"'{text}' {whose} already.", "Leave it out, or word it in another way.")
    return model.encoder.extended(states)


def _train(
    model: PersonalizedRewardModel, name: str, pairs: Sequence[PreferencePair], settings: NewPrinciple
) -> tuple[PreferenceHeads, torch.Tensor]:
    """The calibrated head, and the (N,) cross-validated margins of the pairs before calibration, nats."""
    backbone = model.backbone
    book = SequenceBook(backbone.tokenizer, _MAX_TOKENS, _MAX_TOKENS)
    table = tabulate(pairs, book)
    few = backbone.vocabulary_size <= _WHOLE_VOCABULARY
    corpus = torch.arange(backbone.vocabulary_size) if few else book.corpus
    reader = StateReader(backbone, model.adapter, torch.float32, corpus, _CANDIDATES)
    cache = build_hidden_cache(book.sequences, reader, reader.key, hidden_states())
    head, adapted = backbone.head.float32("cpu"), model.adapter is not None
    rewards = TokenRewards(cache, head, False, adapted)
    prompts = [json.dumps(pair.prompt) for pair in pairs]
    examples = Examples(cache, table, [prompts.index(text) for text in prompts], head, adapted=adapted)
    rank, training = model.heads.rank, settings.training
    margins = held_out_margins(examples, rank, training, settings.seed)
    trained = train_maps(examples, range(len(pairs)), rank, training, settings.seed).as_head(name)
    if not adapted:  # with an adapter there is a part of the reward that all principles share
        found = strengths(trained, rewards, settings.seed, title="Calibrating")
        balance(trained, found * model.calibration)
    return trained, margins


def _joined(heads: PreferenceHeads, new: PreferenceHeads) -> PreferenceHeads:
    """All heads of two modules of one rank, in order."""
    joined = PreferenceHeads([*heads.names, *new.names], heads.down.shape[2], heads.rank).requires_grad_(False)
    joined.down.copy_(torch.cat([heads.down.cpu(), new.down]))
    joined.up.copy_(torch.cat([heads.up.cpu(), new.up]))
    return joined.eval()


def _details(
    details: Mapping[str, Any], added: AddedPrinciple, settings: NewPrinciple, wordings: Sequence[str], key: str
) -> dict[str, Any]:
    """What `pad_config.json` tells of the new version: all that it told of the old one, and what was added."""
    accuracy = added.pair_accuracy
    measured = {
        "pairs": accuracy.n,
        "pair_accuracy": accuracy.value,
        "margin": added.margin,
        "pair_accuracy_interval": [accuracy.low, accuracy.high],
    }
    stage = {"stage": "new principle", "principle": added.name, "pairs": added.examples, **asdict(settings.training)}
    facts = {field: value for field, value in asdict(added).items() if field != "directory"}
    return {
        **details,
        **_moments(details),
        "stages": [*(details.get("stages") or ()), stage],
        "run": key,
        "metrics": {**(details.get("metrics") or {}), f"{added.name} (cross-validated)": measured},
        "added": [*(details.get("added") or ()), {**facts, "wordings": list(wordings)}],
    }


def _moments(details: Mapping[str, Any]) -> dict[str, Any]:
    """`pair_moments` with one more principle: as large as the others, which calibration makes it, and independent."""
    known: list[list[float]] | None = details.get("pair_moments")
    if known is None:
        return {}
    mean = sum(row[place] for place, row in enumerate(known)) / len(known)
    return {"pair_moments": [*([*row, 0.0] for row in known), [*([0.0] * len(known)), round(mean, 4)]]}


def _write(model: PersonalizedRewardModel, data: Mapping[str, Any], out: Path) -> None:
    """Write the new version, whole or not at all; `data` is the report on the old one's training pairs."""
    config = model.details
    names = {"model": "backbone", "revision": "backbone_revision", "quantization": "backbone_quantization"}
    backbone = ModelSettings.model_validate({ours: config.get(theirs) for ours, theirs in names.items()})
    with whole_files(out, last=CONFIG) as scratch:
        save_reward_model(model, scratch, backbone)
        write_json(scratch / "metrics.json", config["metrics"])
        written = json.loads((scratch / CONFIG).read_text(encoding="utf-8"))
        write_whole(scratch / "README.md", model_card(written, config["metrics"], data))


def _finished(out: Path, key: str) -> AddedPrinciple | None:
    """What stands in `out`, if that is this very version."""
    try:
        config = json.loads((out / CONFIG).read_text(encoding="utf-8"))
        if config["run"] != key:
            return None
        facts = {name: value for name, value in config["added"][-1].items() if name != "wordings"}
        return AddedPrinciple(**{**facts, "directory": out, "pair_accuracy": Share(**facts["pair_accuracy"])})
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _check_free(settings: NewPrinciple) -> None:
    """A new version never replaces an older one, unless it is told to."""
    what = "empty directory: it exists already"
    check_output(settings.out, what, lambda _: False, overwrite=settings.overwrite)
