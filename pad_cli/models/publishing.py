"""A reward model made public: its model card, the `README.md` of a checkpoint, and `pad push` to the hub."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import yaml
from huggingface_hub.utils.tqdm import disable_progress_bars

from pad_cli.errors import CheckpointError, StorageError, UsageError
from pad_cli.models.checkpoint_files import CARD, CONFIG, OWN_FILES, brief, hub_id
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.registry import MODEL_SOURCES, resolve_model
from pad_cli.reports.document import templates

_FEW = 100  # validation pairs below which a share is only a hint
_TAGS = ["pad", "personalised-alignment", "reward-model", "decoding-time-alignment"]


def push_reward_model(
    directory: str, repository: str, *, private: bool = False, revision: str | None = None, message: str | None = None
) -> str:
    """Push a reward model's own files to the hub as one commit; a card that was edited keeps its words.

    Args:
        directory: of a checkpoint, or a registered source.
        repository: `owner/name` on the hub; it is created if it does not exist.
        private: whether a repository that is created is private.
        revision: branch, created if it does not exist; by default the main one.
        message: of the commit.

    Returns:
        The commit's address.

    Raises:
        UsageError: `repository` is no id on the hub, or a file is a link.
        CheckpointError: the directory is no reward model, or is damaged.
        StorageError: there is no token or no network, or the hub refuses.
    """
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is None:
        raise UsageError(f"'{repository}' is no id on the hub.", "It has an owner and a name: pad push DIR owner/name")
    source = Path(resolve_model(directory))
    if not (source / CONFIG).is_file():
        problem = f"'{directory}' is not a pad reward model: it has no {CONFIG}."
        raise CheckpointError(problem, "Name the directory that pad train-rm wrote.")
    inspection = inspect_reward_model(str(source))
    if links := [name for name in OWN_FILES if (source / name).is_symlink()]:
        raise UsageError(
            f"'{source / links[0]}' is a link: a file from elsewhere would be made public under its name.",
            "Push a copy of the directory: cp -rL",
        )
    if (source / CARD).is_file():
        card = (source / CARD).read_text(encoding="utf-8")
    else:
        card = model_card(inspection.config, inspection.metrics, inspection.data)
    contents: dict[str, Path | bytes] = {name: source / name for name in OWN_FILES if (source / name).is_file()}
    contents[CARD] = card_at(card, repository).encode()
    files = [huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=at) for name, at in contents.items()]
    message = message or "Push a personalised reward model with pad"
    disable_progress_bars()
    api = huggingface_hub.HfApi(library_name="pad-cli")
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.create_commit(repository, operations=files, revision=revision, commit_message=message)
    except Exception as error:  # whatever the hub's client and its HTTP library raise
        hint = "Check the network (PAD_OFFLINE, HF_HUB_OFFLINE), the name, and that your token may write: hf auth login"
        raise StorageError(f"Cannot push to '{repository}': {brief(error)}", hint) from error
    return str(commit.commit_url)


def model_card(
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    data_report: Mapping[str, Any] | None = None,
) -> str:
    """A model card in Markdown, with the front matter that the hub reads; its commands name the reward model `.`.

    Args:
        config: the content of `pad_config.json`.
        metrics: measurements by validation split.
        data_report: what is known of the training data; None for nothing.
    """
    principles, backbone = config.get("principles") or (), str(config["backbone"])
    # an id, and not the name of a model that this program builds
    on_hub = hub_id(backbone) is not None and backbone.partition("/")[0] not in MODEL_SOURCES.names()
    front_matter = {"library_name": "pad-cli", "tags": _TAGS, **({"base_model": backbone} if on_hub else {})}
    scalars = {split: _scalars(values) for split, values in metrics.items()}
    plain = templates("plain").overlay()
    plain.filters.update(code=_code, cell=_cell, figure=_figure, repr=repr, shell=shlex.quote)
    card = plain.get_template("model_card.md.j2").render(
        front_matter=yaml.safe_dump(front_matter, sort_keys=False),
        backbone=backbone,
        on_hub=on_hub,
        preference=str(principles[0]) if principles else "helpful",
        heads=config.get("conditioning", "heads") == "heads",
        config=config,
        data=data_report or {},
        metrics=metrics,
        scalars=scalars,
        columns=list(dict.fromkeys(name for values in scalars.values() for name in values)),
        few=_FEW,
    )
    return re.sub(r"\n{3,}", "\n\n", card).rstrip() + "\n"


def card_at(card: str, location: str) -> str:
    """A card that was written for its own directory (`.`), with another place of the reward model in its commands."""
    for command in ("--reward-model {} ", "pad inspect {} "):
        card = card.replace(command.format("."), command.format(shlex.quote(location)))
    return card.replace(f'"reward_model": {"."!r}', f'"reward_model": {location!r}')


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
