"""Rows of a Hugging Face data set: on the hub, in a directory of files, or written by `save_to_disk`."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError
from pad_cli.pairs.rows import Row
from pad_cli.recipe import PairsSettings
from pad_cli.system.offline import hub_hint

_SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves in its directory


def scan_data_set(settings: PairsSettings) -> Iterator[Row]:
    """Every row of the split of a data set.

    Raises:
        DataError: it cannot be had, or has no such split; names the data set and what to do.
    """
    assert settings.dataset is not None
    library = _library(settings.dataset)
    try:
        with _quiet(library):
            # plain Python values, whatever form was set when it was saved (RiC saves torch tensors)
            table = _load(library, settings).with_format(None)
    except DataError:
        raise
    except Exception as error:  # the library's own errors have no common base, and each format adds its reader's
        raise _explained(settings, error) from error
    for number, values in enumerate(table):
        yield Row(values, settings.dataset, number, is_line=False)


def _library(name: str) -> Any:
    """The package `datasets`, loaded when the first data set is asked for: it takes a second."""
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"the package `datasets` cannot be imported: {error}", path=name, hint="Install it: pip install datasets"
        ) from error


def _load(library: Any, settings: PairsSettings) -> Any:
    path = Path(str(settings.dataset))
    if any((path / name).is_file() for name in _SAVED):
        return _saved(library, settings)
    if path.is_file():
        raise DataError("a file, not a data set", path=path, hint="Name it as `path`, or its directory as `dataset`.")
    return library.load_dataset(
        settings.dataset, name=settings.config, split=settings.split, revision=settings.revision
    )


def _saved(library: Any, settings: PairsSettings) -> Any:
    """A split of what `save_to_disk` wrote; `train[:100]` and the like as `load_dataset` reads them."""
    if settings.config is not None or settings.revision is not None:
        raise DataError(
            "written by save_to_disk: it has no configurations and revisions",
            path=settings.dataset,
            hint="Leave out `config` and `revision`.",
        )
    try:
        saved = library.load_from_disk(settings.dataset)
    except IndexError as error:  # how the library fails on a data set of no rows
        raise DataError("has no rows", path=settings.dataset, hint="Save it again, with rows.") from error
    whole = not isinstance(saved, library.DatasetDict)
    if whole and "split" not in settings.model_fields_set:
        return saved
    splits = {str(saved.split or "train"): saved} if whole else dict(saved)
    lengths = {split: len(table) for split, table in splits.items()}
    parts = library.ReadInstruction.from_spec(settings.split).to_absolute(lengths)
    spans = [(part.splitname, *slice(part.from_, part.to).indices(lengths[part.splitname])[:2]) for part in parts]
    return library.concatenate_datasets([splits[name].select(range(start, end)) for name, start, end in spans])


@contextlib.contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Without the library's own progress bars, which would be mixed with ours."""
    hidden = library.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            library.enable_progress_bars()


def _explained(settings: PairsSettings, error: Exception) -> DataError:
    """The innermost cause, in the library's words; its outer errors only say that something went wrong."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = " ".join(str(cause).split()) or type(cause).__name__
    asked = ", ".join(
        f"{key} {value!r}"
        for key, value in (("config", settings.config), ("split", settings.split), ("revision", settings.revision))
        if value is not None
    )
    return DataError(
        f"cannot be loaded ({asked}): {reason}",
        path=settings.dataset,
        hint=hub_hint(
            "Check the name (owner/name on the hub, or a directory), `config` and `split`; the hub needs the network, "
            "and `hf auth login` for what is gated.",
            f"hf download --repo-type dataset {settings.dataset}",
        ),
    )
