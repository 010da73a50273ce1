"""A checkpoint made public: checked, with a card whose commands name its new place, and pushed to the hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub

from pad_cli.errors import CheckpointError, StorageError, UsageError
from pad_cli.models.card import card_at, model_card
from pad_cli.models.hub import CARD, OWN_FILES, brief, no_progress_bars, parse_hub_id
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.registry import resolve_model


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
        CheckpointError: the directory is no reward model, is damaged, or is of the authors' form.
        StorageError: there is no token or no network, or the hub refuses.
    """
    target = parse_hub_id(repository)
    if target is None or target.revision is not None:
        raise UsageError(f"'{repository}' is no id on the hub.", "It has an owner and a name: pad push DIR owner/name")
    source = Path(resolve_model(directory))
    if not source.is_dir():
        raise CheckpointError(f"No reward model at '{directory}'.", "Train one: pad train-rm RECIPE")
    inspection = inspect_reward_model(str(source))
    if inspection.form == "released":
        raise CheckpointError(
            f"'{directory}' is a whole language model in the form of the paper's authors.",
            "Push it with the hub's own tool: hf upload",
        )
    if links := [name for name in OWN_FILES if (source / name).is_symlink()]:
        raise UsageError(
            f"'{source / links[0]}' is a link: a file from elsewhere would be made public under its name.",
            "Push a copy of the directory: cp -rL",
        )
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise StorageError(
            "The hub is off limits: --offline, PAD_OFFLINE or HF_HUB_OFFLINE.", "Leave it out, and push again."
        )
    if huggingface_hub.get_token() is None:
        raise StorageError(
            "Pushing needs a token for the hub, and there is none.",
            "hf auth login, or set HF_TOKEN; the token needs the right to write.",
        )
    if (source / CARD).is_file():
        card = (source / CARD).read_text(encoding="utf-8")
    else:
        card = model_card(inspection.config, inspection.metrics, inspection.data)
    contents: dict[str, Path | bytes] = {name: source / name for name in OWN_FILES if (source / name).is_file()}
    contents[CARD] = card_at(card, repository).encode()
    files = [huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=at) for name, at in contents.items()]
    api = huggingface_hub.HfApi(library_name="pad-cli")
    try:
        with no_progress_bars():
            api.create_repo(repository, private=private or None, exist_ok=True)
            if revision is not None:
                api.create_branch(repository, branch=revision, exist_ok=True)
            commit = api.create_commit(
                repository,
                operations=files,
                revision=revision,
                commit_message=message or "Push a personalised reward model with pad",
            )
    except Exception as error:  # whatever the hub's client and its HTTP library raise
        hint = "Check the network, the name, and that your token may do this: hf auth whoami"
        raise StorageError(f"Cannot push to '{repository}': {brief(error)}", hint) from error
    return str(commit.commit_url)
