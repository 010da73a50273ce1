"""The model card: the `README.md` of a checkpoint, written from its facts and nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import yaml

from pad_cli.models.hub import hub_id
from pad_cli.registry import MODEL_SOURCES
from pad_cli.system.yaml_text import YamlError, read_yaml

_SMALL = 100  # validation pairs below which a share is only a hint
_TAGS = ["pad", "personalised-alignment", "reward-model", "decoding-time-alignment"]


def model_card(
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    data_report: Mapping[str, Any] | None = None,
    location: str = ".",
) -> str:
    """A model card in Markdown, with the front matter that the hub reads.

    Args:
        config: the content of `pad_config.json`.
        metrics: measurements by validation split.
        data_report: what is known of the training data; None for nothing.
        location: what `--reward-model` is given in the card's commands: a directory or an id on the hub.
    """
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(config), sort_keys=False)}---",
        f"# {_title(config)}",
        _what_it_is(config),
        _how_to_use(config, location),
        _how_it_was_trained(config, data_report),
        _what_it_measured(metrics),
        _limits(config, metrics, data_report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def card_at(card: str, location: str) -> str:
    """A card that was written for its own directory (`.`), with another place of the reward model in its commands."""
    commands = ("--reward-model {}", "pad inspect {}")
    for command in commands:
        card = card.replace(command.format(". "), command.format(f"{shlex.quote(location)} "))
    return card.replace(f'"reward_model": {"."!r}', f'"reward_model": {location!r}')


def _front_matter(config: Mapping[str, Any]) -> dict[str, Any]:
    backbone = str(config["backbone"])
    front: dict[str, Any] = {"library_name": "pad-cli", "tags": _TAGS}
    if _is_on_hub(backbone):
        front["base_model"] = backbone
    licence = _licence_of(backbone, config.get("backbone_revision"))
    if licence is not None:
        front["license"] = licence
    return front


def _licence_of(backbone: str, revision: str | None) -> str | None:
    """The licence that the backbone's own card names; None when there is no card at hand, or it names none."""
    card: Any = Path(backbone) / "README.md"
    if _is_on_hub(backbone):
        card = huggingface_hub.try_to_load_from_cache(backbone, "README.md", revision=revision)
    if not isinstance(card, (str, Path)) or not Path(card).is_file():
        return None
    try:
        _, front, _ = Path(card).read_text(encoding="utf-8").split("---", 2)
        content = read_yaml(front)
    except (ValueError, OSError, YamlError):
        return None
    licence = content.get("license") if isinstance(content, dict) else None
    return licence if isinstance(licence, str) else None


def _is_on_hub(backbone: str) -> bool:
    """Is it an id, and not the name of a model that this program builds?"""
    return hub_id(backbone) is not None and backbone.partition("/")[0] not in MODEL_SOURCES.names()


def _title(config: Mapping[str, Any]) -> str:
    return f"A personalised reward model on {_code(config['backbone'])}"


def _what_it_is(config: Mapping[str, Any]) -> str:
    parts = ["It gives every next token a reward under one user's preference. Decoding adds that reward to a frozen"]
    parts.append(
        "language model's log-probabilities, and so steers it while it writes; the language model is not changed."
    )
    facts = [("backbone", _code(config["backbone"]) + _at(config.get("backbone_revision")))]
    if config.get("backbone_quantization"):
        facts.append(("backbone's weights packed to", str(config["backbone_quantization"])))
    facts.append(("backbone's fingerprint", _code(config["backbone_fingerprint"])))
    facts.append(("hidden size", str(config["hidden_size"])))
    if config.get("vocabulary_size"):
        facts.append(("vocabulary", f"{config['vocabulary_size']:,} tokens"))
    if config.get("conditioning", "heads") == "heads":
        facts.append(("principles", ", ".join(_code(name) for name in config["principles"])))
        facts.append(("preference heads", f"{len(config['principles'])} of rank {config['rank']}"))
        facts.append(("reads free text", "yes" if config.get("encoder_width") is not None else "no"))
    else:
        facts.append(("preference", "text in the prompt"))
    facts.append(("LoRA adapter", "yes" if config.get("adapter") else "no"))
    facts.append(("format", f"pad-cli checkpoint, version {config['format_version']}"))
    return " ".join(parts) + "\n\n" + _table(("", ""), facts)


def _how_to_use(config: Mapping[str, Any], location: str) -> str:
    preference = _example(config)
    backbone = str(config["backbone"])
    return f"""## Use

```sh
pip install pad-cli
pad generate "How do I start with photography?" --policy {shlex.quote(backbone)} \\
    --reward-model {shlex.quote(location)} --pref {shlex.quote(preference)} --weight 1
```

```python
from pad_cli import PadEngine, load_recipe

engine = PadEngine.from_recipe(
    load_recipe({{"kind": "generate", "policy": {{"model": {backbone!r}}}, "reward_model": {location!r}}})
)
print(engine.generate(["How do I start with photography?"], [engine.preference([{preference!r}])])[0].text)
```

The policy may be another model than the backbone. How well one fits:
`pad inspect {shlex.quote(location)} --policy MODEL`."""


def _how_it_was_trained(config: Mapping[str, Any], data_report: Mapping[str, Any] | None) -> str:
    stages = []
    for stage in config.get("stages") or []:
        settings = ", ".join(f"{key} {value}" for key, value in stage.items() if key != "stage" and _told(value))
        stages.append(f"- stage `{stage.get('stage')}`: {settings}")
    versions = config.get("environment") or {}
    if versions:
        stages.append("- with " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    parts = ["\n".join(stages), *_data(data_report or {})]
    body = "\n\n".join(part for part in parts if part)
    return f"## Training\n\n{body}" if body else ""


def _data(report: Mapping[str, Any]) -> Iterator[str]:
    """The data's tables: splits, training preferences, sources; see `records.DataReport`."""
    splits = report.get("splits") or ()
    names = ("pairs", "prompts", "answers", "mean_answer")
    if splits:
        rows = [(_code(split["name"]), *(_number(split.get(name)) for name in names)) for split in splits]
        yield _table(("split", "pairs", "prompts", "answers", "mean answer (characters)"), rows)
    for split in splits:
        if split["name"] == "train" and split.get("preferences"):
            found = split["preferences"].items()
            rows = [(_code(name), _number(each["pairs"]), _number(each["chosen_longer"])) for name, each in found]
            yield _table(("trained preference", "pairs", "share with the longer answer chosen"), rows)
    if report.get("sources"):
        yield _table(("source", "for", "rows", "pairs kept", "left out"), [_source(each) for each in report["sources"]])


def _source(source: Mapping[str, Any]) -> tuple[str, ...]:
    dropped = ", ".join(f"{each['reason']} {_number(each['count'])}" for each in source.get("dropped") or ())
    counts = (_number(source.get("rows")), _number(source.get("pairs_kept")))
    return (_code(source["name"]), _code(source["split"]), *counts, dropped or "nothing")


def _what_it_measured(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "## Measurements\n\nNone: it was trained without validation data."
    columns = list(dict.fromkeys(name for values in metrics.values() for name, _ in _scalars(values)))
    rows = [
        (_code(split), *(_number(dict(_scalars(values)).get(name)) for name in columns))
        for split, values in metrics.items()
    ]
    meaning = (
        "`pair_accuracy`: share of pairs whose chosen answer has the higher summed reward (0.5 is chance). `margin`: "
        "mean difference, in nats. `policy_accuracy`: share whose chosen answer is likelier, per token, under guidance "
        "weight 1."
    )
    compared = [
        (_code(split), _code(name), _number(each["pair_accuracy"]), str(each["reward_model"]))
        for split, values in metrics.items()
        for name, each in (values.get("baselines") or {}).items()
    ]
    by_preference = [
        (_code(split), _code(name), *(_number(each[key]) for key in ("pairs", "pair_accuracy", "policy_accuracy")))
        for split, values in metrics.items()
        for name, each in (values.get("preferences") or {}).items()
    ]
    parts = [
        "## Measurements",
        "On validation pairs, which training never saw.",
        _table(("split", *columns), rows),
        meaning,
    ]
    if compared:
        parts += ["Against simple baselines on the same rows (is the difference more than chance?):"]
        parts += [_table(("split", "baseline", "its pair accuracy", "this reward model"), compared)]
    if by_preference:
        parts += [_table(("split", "preference", "pairs", "pair accuracy", "policy accuracy"), by_preference)]
    return "\n\n".join(parts)


def _limits(config: Mapping[str, Any], metrics: Mapping[str, Any], data_report: Mapping[str, Any] | None) -> str:
    limits = []
    if config.get("conditioning", "heads") == "heads":
        known = "only these principles" if config.get("encoder_width") is None else "what its principles can mix"
        limits.append(f"It steers towards {known}; a preference that nobody trained needs a head of its own.")
    if not _is_on_hub(str(config["backbone"])):
        limits.append(
            f"Its backbone is {_code(config['backbone'])}, on the machine where it was trained: elsewhere it loads "
            "only with the same weights under that name."
        )
    if config.get("adapter"):
        limits.append("Its adapter needs the backbone's tokenizer: it cannot steer a policy of another vocabulary.")
    if not metrics:
        limits.append("Nothing was held out, so nothing is known of how well it does on new pairs.")
    for split, values in metrics.items():
        facts = dict(_scalars(values))
        if facts.get("pairs", _SMALL) < _SMALL:
            limits.append(
                f"The split {_code(split)} has {facts['pairs']} pairs: its shares are uncertain by more than 0.1."
            )
        for name, baseline in (values.get("baselines") or {}).items():
            if baseline["reward_model"] != "beats":
                limits.append(f"On {_code(split)} it {baseline['reward_model']} the baseline {_code(name)}.")
        if facts.get("pair_accuracy", 1.0) <= 0.5:
            limits.append(f"On {_code(split)} it is no better than chance at telling chosen from rejected.")
    if not data_report:
        limits.append("There is no report on its training data.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits) if limits else ""


def _example(config: Mapping[str, Any]) -> str:
    principles = config.get("principles") or ()
    return str(principles[0]) if principles else "helpful"


def _at(revision: Any) -> str:
    return f" at {_code(revision)}" if revision else ""


def _told(value: Any) -> bool:
    return value is not None and not isinstance(value, (Mapping, list))


def _scalars(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The numbers among some facts."""
    for name, value in facts.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, value


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: Any) -> str:
    return f"`{str(text).replace('`', chr(39))}`"
