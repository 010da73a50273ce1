"""Reward models on the Hugging Face hub, by id: `owner/name` or `owner/name@revision`.

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

from pad_cli.errors import CheckpointError, StorageError, closest
from pad_cli.models.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, ENCODER, HEADS, SAMPLE, VALUE_HEAD
from pad_cli.registry import MODEL_SOURCES
from pad_cli.system.offline import hub_hint
from pad_cli.system.progress import stage

CARD = "README.md"
OWN_FILES = (
    *(CARD, CONFIG, HEADS, ENCODER, VALUE_HEAD, SAMPLE, ADAPTER_CONFIG, ADAPTER_WEIGHTS),
    *("metrics.json", "recipe.json", "report.json", "report.md", "report.html"),
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "spiece.model", "chat_template.jinja"),
)
"""What a checkpoint may consist of; other files of its directory are never pushed nor fetched."""

_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
_TIMEOUT = 10  # seconds, for the hub's first answer


@dataclass(frozen=True)
class HubId:
    """`owner/name`, and which branch, tag or commit of it; None is the main branch."""

    repository: str
    revision: str | None = None


def parse_hub_id(text: str) -> HubId | None:
    """`owner/name` or `owner/name@revision`; None where the text is neither."""
    match = _ID.fullmatch(text)
    return None if match is None else HubId(match["repository"], match["revision"])


def hub_id(location: str) -> HubId | None:
    """Read a location as an id on the hub; None when it is, or only can be, a directory.

    A name without an owner is a directory, and so is one in a directory that exists.
    """
    path = Path(location)
    if location.startswith(".") or path.exists() or path.parent.is_dir():
        return None
    return parse_hub_id(location)


def fetch_checkpoint(location: str) -> str:
    """Where the files of a reward model are; a checkpoint on the hub is fetched if it changed.

    A directory stays as it is. Without a network, what was fetched before is taken. A repository in the form that the
    paper's authors released stays an id, so that the language model in it is found as any other; without a network it
    becomes the directory in the cache.

    Raises:
        CheckpointError: the hub has no such reward model, or cannot be asked and nothing was fetched before.
    """
    target = hub_id(location)
    if target is None:
        return location
    try:
        info = huggingface_hub.HfApi().model_info(target.repository, revision=target.revision, timeout=_TIMEOUT)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        what = "revision" if isinstance(error, RevisionNotFoundError) else "repository that you may read"
        raise CheckpointError(
            f"No reward model at '{location}': there is no such directory, and the hub has no such {what}.",
            f"{_similar_source(location)}Check the name; a private or gated one needs: hf auth login",
        ) from error
    except Exception as error:  # whatever the HTTP library raises: no network, or a hub that is down
        return _cached(location, target, error)
    if CONFIG not in {file.rfilename for file in info.siblings or ()}:
        return location
    with stage(f"Fetching {location}"), hub_errors(f"Cannot fetch '{location}'"):
        return huggingface_hub.snapshot_download(
            target.repository, revision=info.sha, allow_patterns=list(OWN_FILES), library_name="pad-cli"
        )


@contextlib.contextmanager
def hub_errors(action: str) -> Iterator[None]:
    """Inside, which are calls of the hub's client only: its errors as a StorageError, and no progress bars."""
    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    except Exception as error:
        raise StorageError(
            f"{action}: {_brief(error)}", "Check the network, the name, and that your token may do this: hf auth whoami"
        ) from error
    finally:
        if not silent:
            enable_progress_bars()


def _cached(location: str, target: HubId, reason: Exception) -> str:
    """The directory in the hub's cache that holds a reward model of either form."""
    for name in (CONFIG, VALUE_HEAD):
        path = huggingface_hub.try_to_load_from_cache(target.repository, name, revision=target.revision)
        if isinstance(path, str):
            return str(Path(path).parent)
    raise CheckpointError(
        f"No reward model at '{location}': there is no such directory, and the hub cannot be asked: {_brief(reason)}",
        hub_hint(
            f"{_similar_source(location)}Check the name and the network; what was fetched once loads without one.",
            f"hf download {target.repository}",
        ),
    ) from reason


def _similar_source(location: str) -> str:
    """For a hint: a registered source with a similar name."""
    similar = closest(location.partition("/")[0], MODEL_SOURCES.names())
    return similar and f"{similar} "


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
