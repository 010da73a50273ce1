"""PAD: personalised alignment of language models at decoding time.

The public API, whose names and their modules stand in `__init__.pyi`. They are imported when first used, so that
`import pad_cli` is fast and needs no torch.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pad_cli.system.offline import go_offline, offline

_STUB = (Path(__file__).parent / "__init__.pyi").read_text(encoding="utf-8")
_HOMES = {
    alias.name: str(line.module)
    for line in ast.parse(_STUB).body
    if isinstance(line, ast.ImportFrom) and str(line.module).startswith("pad_cli.")
    for alias in line.names
}
__all__ = sorted(_HOMES)

_LIGHT = (
    *("cli.examination", "errors", "models.inspection", "preference", "principles", "profiles"),
    *("recipe", "recipe.catalogue", "records", "system.caches", "system.run_lock", "system.runs"),
)
"""Modules that import no torch."""

_around_imports: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

if offline():
    go_offline()  # before the hub's libraries are imported, which ask only once


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'pad_cli' has no attribute '{name}'")
    home = _HOMES[name]
    at_once = home in sys.modules or home.removeprefix("pad_cli.") in _LIGHT
    with contextlib.nullcontext() if at_once else _around_imports():
        return getattr(importlib.import_module(home), name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow: it brings Python's `email`

    try:
        return version("pad-cli")
    except PackageNotFoundError:
        return "0+unknown"


def show_imports(around: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
    """Have something shown while a public name is imported for the first time and brings torch, which takes seconds."""
    global _around_imports
    _around_imports = around


def __dir__() -> list[str]:
    return [*globals(), "__version__", *_HOMES]
