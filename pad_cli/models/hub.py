"""Reward models on the Hugging Face hub: fetched by id, `owner/name` or `owner/name@revision`, and pushed.

Only a checkpoint's own files travel. Its backbone stays where `pad_config.json` says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from pad_cli.errors import CheckpointError, StorageError, UsageError, closest
from pad_cli.registry import MODEL_SOURCES
from pad_cli.system.offline import hub_hint
from pad_cli.system.progress import stage

_CONFIG = "pad_config.json"
_CARD = "README.md"
OWN_FILES = (
    _CARD,
    _CONFIG,
    "preference_heads.safetensors",
    "preference_encoder.safetensors",
    "value_head.safetensors",
    "backbone_sample.safetensors",
    "adapter_config.json",
    "adapter_model.safetensors",
    "metrics.json",
    "recipe.json",
    "report.json",
    "report.md",
    "report.html",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "chat_template.jinja",
)
"""What a checkpoint may consist of; other files of its directory are never pushed nor fetched."""

_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
_SECONDS = 10  # to wait for the hub's first answer


@dataclass(frozen=True)
class HubId:
    """`owner/name`, and which branch, tag or commit of it; None is the main branch."""

    repository: str
    revision: str | None = None


def hub_id(location: str) -> HubId | None:
    """Read a location as an id on the hub; None when it is, or only can be, a directory.

    As everywhere in this program, a name without an owner is a directory, and so is one in a directory that exists.
    """
    path = Path(location)
    found = _ID.fullmatch(location)
    if found is None or location.startswith(".") or path.exists() or path.parent.is_dir():
        return None
    return HubId(found["repository"], found["revision"])


def fetch_checkpoint(location: str) -> str:
    """Where the files of a reward model are; a checkpoint on the hub is fetched if it changed.

    A directory stays as it is. Without a network, what was fetched before is taken. A repository in the form that the
    paper's authors released stays an id, so that the language model in it is found as any other; without a network it
    becomes the directory in the cache.

    Raises:
        CheckpointError: the hub has no such reward model, or cannot be asked and nothing was fetched before.
    """
    wanted = hub_id(location)
    if wanted is None:
        return location
    try:
        info = huggingface_hub.HfApi().model_info(wanted.repository, revision=wanted.revision, timeout=_SECONDS)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        what = "revision" if isinstance(error, RevisionNotFoundError) else "repository that you may read"
        raise CheckpointError(
            f"No reward model at '{location}': there is no such directory, and the hub has no such {what}.",
            f"{_near(location)}Check the name; a private or gated one needs: hf auth login",
        ) from error
    except Exception as error:  # whichever library of HTTP it is today: no network, or a hub that is down
        return _fetched_before(location, wanted, error)
    if _CONFIG not in {file.rfilename for file in info.siblings or ()}:
        return location
    with stage(f"Fetching {location}"), _explained(f"Cannot fetch '{location}'"):
        return huggingface_hub.snapshot_download(
            wanted.repository, revision=info.sha, allow_patterns=list(OWN_FILES), library_name="pad-cli"
        )


def push_checkpoint(
    directory: Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    card: str | None = None,
) -> str:
    """Push a checkpoint's own files as one commit; the repository is made when it is not there.

    Args:
        directory: a checkpoint.
        repository: `owner/name`.
        private: make the repository private, when it is made.
        revision: branch to push to, made when it is not there; by default the main one.
        message: of the commit.
        card: text of the model card in place of the directory's own.

    Returns:
        The commit's address.

    Raises:
        UsageError: `repository` is no id on the hub, or a file is a link.
        StorageError: there is no token or no network, or the hub refuses.
    """
    if _ID.fullmatch(repository) is None or "@" in repository:
        raise UsageError(f"'{repository}' is no id on the hub.", "It has an owner and a name: pad push DIR owner/name")
    if not (directory / _CONFIG).is_file():
        raise CheckpointError(
            f"'{directory}' is no reward model: it has no {_CONFIG}.", "Name the directory that pad train-rm wrote."
        )
    if links := [name for name in OWN_FILES if (directory / name).is_symlink()]:
        raise UsageError(
            f"'{directory / links[0]}' is a link: a file from elsewhere would be made public under its name.",
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
    contents: dict[str, Path | bytes] = {name: directory / name for name in OWN_FILES if (directory / name).is_file()}
    if card is not None:
        contents[_CARD] = card.encode()
    files = [huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=at) for name, at in contents.items()]
    api = huggingface_hub.HfApi(library_name="pad-cli")
    with _explained(f"Cannot push to '{repository}'"):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.create_commit(
            repository,
            operations=files,
            revision=revision,
            commit_message=message or "Push a personalised reward model with pad",
        )
    return str(commit.commit_url)


def _fetched_before(location: str, wanted: HubId, reason: Exception) -> str:
    """The directory in the hub's cache that holds a reward model of either form."""
    for name in (_CONFIG, "value_head.safetensors"):
        found = huggingface_hub.try_to_load_from_cache(wanted.repository, name, revision=wanted.revision)
        if isinstance(found, str):
            return str(Path(found).parent)
    raise CheckpointError(
        f"No reward model at '{location}': there is no such directory, and the hub cannot be asked: {_brief(reason)}",
        hub_hint(
            f"{_near(location)}Check the name and the network; what was fetched once loads without one.",
            f"hf download {wanted.repository}",
        ),
    ) from reason


def _near(location: str) -> str:
    """Whether it looks like a registered source's, for a hint."""
    near = closest(location.partition("/")[0], MODEL_SOURCES.names())
    return near and f"{near} "


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """What the hub's client raises, in the user's words, and no bars of its; nothing but calls of it stands inside."""
    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    except Exception as error:
        raise StorageError(
            f"{what}: {_brief(error)}", "Check the network, the name, and that your token may do this: hf auth whoami"
        ) from error
    finally:
        if not silent:
            enable_progress_bars()


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
