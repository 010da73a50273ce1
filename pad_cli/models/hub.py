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

from pad_cli.errors import CheckpointError, closest
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
    """An id on the hub; None for what is, or can only be, a directory: it has no owner, or its parent exists."""
    path = Path(location)
    if location.startswith(".") or path.exists() or path.parent.is_dir():
        return None
    return parse_hub_id(location)


def fetch_checkpoint(location: str) -> str:
    """Where the files of a reward model are; a checkpoint on the hub is fetched if it changed.

    A directory stays as it is. A repository without `pad_config.json`, in the form that the paper's authors released,
    stays an id, so that the language model in it is found as any other.

    Raises:
        CheckpointError: the hub has no such reward model, or cannot be asked and nothing was fetched before.
    """
    target = hub_id(location)
    if target is None:
        return location
    similar = closest(location.partition("/")[0], MODEL_SOURCES.names())
    try:
        with stage(f"Fetching {location}"), no_progress_bars():
            directory = huggingface_hub.snapshot_download(
                target.repository,
                revision=target.revision,
                allow_patterns=list(OWN_FILES),
                etag_timeout=_TIMEOUT,
                library_name="pad-cli",
            )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        what = "revision" if isinstance(error, RevisionNotFoundError) else "repository that you may read"
        raise CheckpointError(
            f"No reward model at '{location}': there is no such directory, and the hub has no such {what}.",
            f"{similar} Check the name; a private or gated one needs: hf auth login".strip(),
        ) from error
    except Exception as error:  # whatever the HTTP library raises: no network, or a hub that is down
        hint = f"{similar} Check the name and the network; what was fetched once loads without one.".strip()
        raise CheckpointError(
            f"No reward model at '{location}': there is no such directory, and it cannot be fetched: {brief(error)}",
            hub_hint(hint, f"hf download {target.repository}"),
        ) from error
    return directory if Path(directory, CONFIG).exists() else location


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Inside, the hub's client shows no progress bars."""
    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not silent:
            enable_progress_bars()


def brief(error: Exception) -> str:
    """The first two lines of an error of the hub's client."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
