"""The model card: the `README.md` of a checkpoint, from its configuration and measurements and nothing else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import yaml

from pad_cli.models.hub import hub_id
from pad_cli.registry import MODEL_SOURCES
from pad_cli.reports.document import templates
from pad_cli.system.checked_yaml import YamlError, read_yaml

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
    heads = config.get("conditioning", "heads") == "heads"
    principles = config.get("principles") or ()
    card = templates("plain").overlay()
    card.filters.update(code=_code, cell=_cell, figure=_figure, repr=repr, shell=shlex.quote)
    text = card.get_template("model_card.md.j2").render(
        front_matter=yaml.safe_dump(_front_matter(config), sort_keys=False),
        backbone=str(config["backbone"]),
        location=location,
        preference=str(principles[0]) if principles else "helpful",
        heads=heads,
        config=config,
        stages=[_settings(stage) for stage in config.get("stages") or ()],
        data=data_report or {},
        metrics={split: _scalars(values) for split, values in metrics.items()},
        columns=list(dict.fromkeys(name for values in metrics.values() for name in _scalars(values))),
        baselines=_parts(metrics, "baselines"),
        preferences=_parts(metrics, "preferences"),
        limits=list(_limits(config, metrics, data_report, heads)),
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


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


def _settings(stage: Mapping[str, Any]) -> tuple[str, str]:
    """A stage's name and those of its settings that are single values."""
    settings = (
        f"{key} {value}"
        for key, value in stage.items()
        if key != "stage" and value is not None and not isinstance(value, (Mapping, list))
    )
    return str(stage.get("stage")), ", ".join(settings)


def _limits(
    config: Mapping[str, Any], metrics: Mapping[str, Any], data_report: Mapping[str, Any] | None, heads: bool
) -> Iterator[str]:
    if heads:
        known = "only these principles" if config.get("encoder_width") is None else "what its principles can mix"
        yield f"It steers towards {known}; a preference that was not trained needs a head of its own."
    if not _is_on_hub(str(config["backbone"])):
        yield (
            f"Its backbone is {_code(config['backbone'])}, on the machine where it was trained: elsewhere it loads "
            "only with the same weights under that name."
        )
    if config.get("adapter"):
        yield "Its adapter needs the backbone's tokenizer: it cannot steer a policy of another vocabulary."
    if not metrics:
        yield "Nothing was held out, so its quality on new pairs is unknown."
    for split, values in metrics.items():
        if values.get("pairs", _SMALL) < _SMALL:
            yield f"The split {_code(split)} has {values['pairs']} pairs: its shares are uncertain by more than 0.1."
        for name, baseline in (values.get("baselines") or {}).items():
            if baseline["reward_model"] != "beats":
                yield f"On {_code(split)} it {baseline['reward_model']} the baseline {_code(name)}."
        if values.get("pair_accuracy", 1.0) <= 0.5:
            yield f"On {_code(split)} it is no better than chance at telling chosen from rejected."
    if not data_report:
        yield "There is no report on its training data."


def _parts(metrics: Mapping[str, Any], key: str) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(split, name, measurements) of what was measured for several baselines or preferences of a split."""
    return [(split, *part) for split, values in metrics.items() for part in (values.get(key) or {}).items()]


def _scalars(values: Mapping[str, Any]) -> dict[str, int | float]:
    return {name: value for name, value in values.items() if isinstance(value, (int, float)) and value is not True}


def _code(text: Any) -> str:
    return f"`{_cell(text).replace('`', chr(39))}`"


def _cell(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _figure(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else ""
