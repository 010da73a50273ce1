"""The embedded world's models: where a name like `embedded/medium` leads.

    embedded/small         0.14 M parameters
    embedded/medium        0.50 M parameters, under the reward model
    embedded/large         1.5 M parameters, trained on other documents
    embedded/following     0.50 M parameters, trained to do what a preference in its prompt says
    embedded/reward-model  the shipped recipe `embedded` on embedded/medium

They ship with the package, in `data/embedded/`, where `make embedded` writes them.
"""

from __future__ import annotations

from pathlib import Path

from pad_cli.errors import UsageError, did_you_mean
from pad_cli.system.resources import shipped

SHIPPED = ("small", "medium", "large", "following", "reward-model")


def model_directory(name: str) -> Path:
    """Small language models and a reward model that ship with the package: the directory of one.

    Raises:
        UsageError: there is no such model.
        StorageError: the installation lacks its files.
    """
    if name not in SHIPPED:
        raise UsageError(f"No embedded model is named '{name}'.", did_you_mean(name, SHIPPED))
    return shipped(f"data/embedded/{name}")
