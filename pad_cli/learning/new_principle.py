"""A principle that nobody trained, from a few pairs: one more head on a finished reward model, as a new version of it.

Backbone, adapter and the other heads stay as they are, and so do their rewards and what their paraphrases mean.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from pad_cli.errors import DataError, PreferenceError, UsageError
from pad_cli.learning.choices import read_choice
from pad_cli.learning.few_shot_head import SETTINGS, Examples, cross_validated_margins, train_maps
from pad_cli.learning.user_weights import with_heads
from pad_cli.models.checkpoint import load_reward_model, save_reward_model
from pad_cli.models.checkpoint_files import CONFIG
from pad_cli.models.heads import PreferenceEncoder, PreferenceHeads, text_states
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.models.publishing import model_card
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.models.scoring import corpus_of
from pad_cli.pairs import RowError, is_text, note_changes, read_rows
from pad_cli.recipe import ModelSettings
from pad_cli.records import PreferencePair
from pad_cli.system.progress import note
from pad_cli.system.runs import check_output, fingerprint, hidden_states, whole_files, write_json, write_whole
from pad_cli.training.hidden_cache import HiddenStateExtractor, build_hidden_cache
from pad_cli.training.metrics import Share, outcomes, share_of
from pad_cli.training.pair_table import SequenceBook, tabulate
from pad_cli.training.token_rewards import TokenRewards, normalise_heads, reward_scales

FEWEST = 4
"""Pairs that a new principle needs."""

_MAX_TOKENS = 1024  # of a prompt, and of an answer
_CANDIDATES = 64  # of the truncated normaliser
_WHOLE_VOCABULARY = 8192  # tokens up to which candidates are drawn from all of them
_SAME = 1 - 1e-4  # cosine from which two paraphrases are one
_HINT = (
    'Write {"prompt": "...", "chosen": "...", "rejected": "..."} a line: the chosen answer shows the principle, the '
    "rejected one does not."
)


@dataclass(frozen=True)
class AddedPrinciple:
    """The result."""

    directory: Path  # of the new version
    name: str
    examples: int  # number of pairs
    pair_accuracy: Share  # of them that heads trained on the others rank correctly
    margin: float  # mean difference of the summed rewards in that cross-validation, nats
    wordings: tuple[str, ...]  # texts that the preference encoder now knows, the name among them; none without one
    parent: str  # fingerprint of the reward model that it was added to


_RECORD = TypeAdapter(AddedPrinciple)


def add_principle(
    name: str,
    examples: Path,
    reward_model: str,
    out: Path,
    paraphrases: Sequence[str] = (),
    *,
    device: str = "auto",
    overwrite: bool = False,
) -> AddedPrinciple:
    """Train a head for a new principle, and write the reward model with it as a new version.

    Args:
        name: as a preference will use it.
        examples: JSONL of prompt, chosen (shows the principle) and rejected (does not), at least four.
        reward_model: a directory, a registered source, or an id on the hub.
        out: directory of the new version; must not exist yet, unless it is this very version or with `overwrite`.
        paraphrases: other words for the principle, for a reward model that reads free text.
        device: of the backbone.

    Raises:
        DataError: the examples cannot be read, are too few, or contradict each other.
        UsageError: the name is in use or unusable, `out` holds something else, or the reward model has no heads.
        PreferenceError: a paraphrase belongs to another principle already.
        CheckpointError, ModelLoadError, StorageError, TrainingError: see `pad_cli.errors`.
    """
    name = " ".join(name.split())
    pairs = read_examples(examples, name)
    parent = inspect_reward_model(reward_model)
    _check_name(name, parent.config.get("principles") or ())
    model = with_heads(load_reward_model(reward_model, device=device))
    texts = tuple(dict.fromkeys([name, *(" ".join(text.split()) for text in paraphrases)]))
    key = fingerprint([model.fingerprint, name, [pair.content() for pair in pairs], texts, SETTINGS, 0])
    if (finished := _finished(out, key)) is not None:
        note(f"{out} is finished; nothing to do.")
        return finished
    # a new version never replaces an older one unasked
    check_output(out, "empty directory: it exists already", lambda _: False, overwrite=overwrite)
    encoder = _extended_encoder(model, name, texts)
    head, margins = _train(model, name, pairs)
    added = AddedPrinciple(
        directory=out,
        name=name,
        examples=len(pairs),
        pair_accuracy=share_of(outcomes(margins)),
        margin=round(margins.mean().item(), 4),
        wordings=() if encoder is None else texts,
        parent=model.fingerprint,
    )
    if added.pair_accuracy.low <= 0.5:
        share = f"{added.pair_accuracy.value:.0%} of the examples are predicted from the others, which may be chance"
        note(f"Warning: {share}: they hardly define '{name}'. Add pairs, or use pairs that differ in nothing else.")
    heads = PreferenceHeads([*model.heads.names, name], model.heads.down.shape[2], model.heads.rank)
    heads.requires_grad_(False)
    heads.down.copy_(torch.cat([model.heads.down.cpu(), head.down]))
    heads.up.copy_(torch.cat([model.heads.up.cpu(), head.up]))
    version = dataclasses.replace(model, heads=heads.eval(), encoder=encoder)
    version.details = _details(model.details, added, key)
    _write(version, parent.data, out)
    return added


def read_examples(path: Path, name: str) -> tuple[PreferencePair, ...]:
    """The pairs of a file, at least four, duplicates once (DataError: a row is wrong, or contradicts another)."""
    pairs: dict[tuple[str, str, str], PreferencePair] = {}
    rows = read_rows(path)
    for row in rows:
        comparison, reply = read_choice(row)
        if reply is None:
            continue
        prompt, answers = comparison.prompt, (comparison.first, comparison.second)
        chosen, rejected = answers if reply else reversed(answers)
        if (other := pairs.get((str(prompt), rejected, chosen))) is not None:
            reason = f"contradicts {other.place}: the same two answers the other way round"
            raise RowError(reason, hint="Keep the row whose chosen answer shows the principle.").at(row)
        pair = PreferencePair(prompt, {name: 1.0}, chosen, rejected, place=row.place)
        pairs.setdefault((str(prompt), chosen, rejected), pair)
    note_changes(rows)
    if len(pairs) < FEWEST:
        raise DataError(f"a new principle needs at least {FEWEST} pairs, here are {len(pairs)}", path=path, hint=_HINT)
    return tuple(pairs.values())


def _check_name(name: str, principles: Sequence[str]) -> None:
    if not is_text(name) or not name.isprintable() or name.startswith("@") or name.lower().startswith("text:"):
        raise UsageError(f"{name!r} cannot be a principle's name.", "Use a word or two, like: inquisitive")
    if name.lower() in (known.lower() for known in principles):
        hint = "Choose another name, or start from a reward model without it."
        raise UsageError(f"This reward model knows '{name}' already.", hint)


def _extended_encoder(model: PersonalizedRewardModel, name: str, texts: Sequence[str]) -> PreferenceEncoder | None:
    """The encoder that knows the new texts as well; None where there is none."""
    if model.encoder is None:
        if len(texts) > 1:
            note(f"This reward model reads no free text: '{name}' is known by its name only, not by paraphrases.")
        return None
    if not all(map(is_text, texts)):
        raise PreferenceError("A paraphrase is empty.", "Write other words for the principle.")
    states = text_states(model.backbone, texts)
    nearest = model.encoder.similarities(states).max(1)
    for text, cosine, place in zip(texts, nearest.values.tolist(), nearest.indices.tolist(), strict=True):
        owner = int(model.encoder.owners[place])
        if cosine > _SAME:
            meaning = f"means '{model.principles[owner]}'" if owner >= 0 else "has a meaning"
            raise PreferenceError(f"'{text}' {meaning} already.", "Leave it out, or paraphrase it.")
    return model.encoder.extended(states)


def _train(
    model: PersonalizedRewardModel, name: str, pairs: Sequence[PreferencePair]
) -> tuple[PreferenceHeads, torch.Tensor]:
    """The calibrated head, and the (N,) cross-validated margins of the pairs before calibration, nats."""
    backbone, adapted = model.backbone, model.adapter is not None
    book = SequenceBook()
    table = tabulate(pairs, book)
    sequences, _ = book.tokenised(backbone.tokenizer, _MAX_TOKENS, _MAX_TOKENS)
    small = backbone.vocabulary_size <= _WHOLE_VOCABULARY
    corpus = torch.arange(backbone.vocabulary_size) if small else corpus_of(sequences)
    reader = HiddenStateExtractor(backbone, model.adapter, torch.float32, corpus, _CANDIDATES)
    cache = build_hidden_cache(sequences, reader, hidden_states())
    head = backbone.head.float32("cpu")
    prompts = [json.dumps(pair.prompt) for pair in pairs]
    examples = Examples(cache, table, [prompts.index(text) for text in prompts], head, adapted=adapted)
    margins = cross_validated_margins(examples, model.heads.rank)
    trained = train_maps(examples, range(len(pairs)), model.heads.rank).as_head(name)
    if not adapted:  # with an adapter, part of the reward is common to all principles
        rewards = TokenRewards(cache, head, False, adapted)
        scales = reward_scales(trained, rewards, title="Calibrating")
        normalise_heads(trained, scales * model.calibration)
    return trained, margins


def _details(parent: Mapping[str, Any], added: AddedPrinciple, key: str) -> dict[str, Any]:
    """The record of the new version in `pad_config.json`: that of its parent, and what was added."""
    details, accuracy = dict(parent), added.pair_accuracy
    measured = {
        "pairs": accuracy.n,
        "pair_accuracy": accuracy.value,
        "margin": added.margin,
        "pair_accuracy_interval": [accuracy.low, accuracy.high],
    }
    stage = {"stage": "new principle", "principle": added.name, "pairs": added.examples, **SETTINGS}
    record = _RECORD.dump_python(added, mode="json", exclude={"directory"})
    moments = parent.get("pair_moments")
    if moments is not None:  # one more principle: as large as the others, which calibration makes it, and independent
        mean = sum(row[number] for number, row in enumerate(moments)) / len(moments)
        details["pair_moments"] = [*([*row, 0.0] for row in moments), [*([0.0] * len(moments)), round(mean, 4)]]
    return {
        **details,
        "stages": [*(parent.get("stages") or ()), stage],
        "run": key,
        "metrics": {**(parent.get("metrics") or {}), f"{added.name} (cross-validated)": measured},
        "added": [*(parent.get("added") or ()), record],
    }


def _write(model: PersonalizedRewardModel, data: Mapping[str, Any], out: Path) -> None:
    """Write the new version, whole or not at all; `data` is the report on the parent's training pairs."""
    config = model.details
    names = {"model": "backbone", "revision": "backbone_revision", "quantization": "backbone_quantization"}
    backbone = ModelSettings.model_validate({ours: config.get(theirs) for ours, theirs in names.items()})
    with whole_files(out, last=CONFIG) as scratch:
        save_reward_model(model, scratch, backbone)
        write_json(scratch / "metrics.json", config["metrics"])
        written = json.loads((scratch / CONFIG).read_text(encoding="utf-8"))
        write_whole(scratch / "README.md", model_card(written, config["metrics"], data))


def _finished(out: Path, key: str) -> AddedPrinciple | None:
    """The record in `out`, if that is this very version."""
    try:
        config = json.loads((out / CONFIG).read_text(encoding="utf-8"))
        return _RECORD.validate_python({**config["added"][-1], "directory": out}) if config["run"] == key else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
