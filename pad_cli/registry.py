"""Lookup by name: the tables of what ships, and one entry-point group for each kind of plug-in.

An entry is `name -> "module:attribute"`, imported when first used. A package adds its own by declaring an entry point
in the group `pad.<kind>`, as this one does for the embedded world in `pyproject.toml`:

    [project.entry-points."pad.scorers"]
    politeness = "my_package.politeness:PolitenessScorer"
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any

from pad_cli.errors import PadError, PluginError, UsageError, did_you_mean


@functools.cache
def _entry_points(kind: str, path: tuple[str, ...]) -> EntryPoints:
    """Those of all packages on `sys.path`: reading their metadata takes tens of milliseconds."""
    return entry_points(group=f"pad.{kind}")


def _is_own(point: EntryPoint) -> bool:
    """Does this package declare the entry point? Other packages cannot replace its entries."""
    return point.value.startswith("pad_cli.")


@dataclass(frozen=True)
class Registry:
    """Names of one kind. `kind` is the plural noun used in messages and in the entry-point group."""

    kind: str
    table: Mapping[str, str]

    def names(self) -> list[str]:
        return sorted(self._targets())

    def target(self, name: str) -> str | None:
        """`module:attribute` of what has that name."""
        return self.table.get(name) or self._targets().get(name)

    def get(self, name: str) -> Any:
        """Import and return what `name` stands for.

        Raises:
            UsageError: nothing has that name.
            PluginError: it has, but cannot be imported; or this package is not installed.
        """
        target = self.target(name)
        if target is None:
            check_installed()
            raise UsageError(f"No {self.kind} entry is named '{name}'.", did_you_mean(name, self.names()))
        module, _, attribute = target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except PadError:
            raise
        except Exception as error:
            raise PluginError(
                f"The {self.kind} entry '{name}' ({target}) cannot be imported: {error}",
                "Reinstall the package that provides it, or correct its entry point.",
            ) from error

    def _targets(self) -> dict[str, str]:
        points = sorted(_entry_points(self.kind, tuple(sys.path)), key=_is_own)
        return {**{point.name: f"{point.module}:{point.attr}" for point in points}, **self.table}


SCORERS = Registry(
    "scorers",
    {
        "distinct_2": "pad_cli.evaluation.scorers.text_statistics:DISTINCT_2",
        "repeated_4grams": "pad_cli.evaluation.scorers.text_statistics:REPEATED_4GRAMS",
        "style": "pad_cli.evaluation.scorers.style:style",
        "words": "pad_cli.evaluation.scorers.text_statistics:WORDS",
        "readability": "pad_cli.evaluation.scorers.text_statistics:readability",
        "sentiment": "pad_cli.evaluation.scorers.text_statistics:sentiment",
        "log_perplexity": "pad_cli.evaluation.scorers.likelihood:log_perplexity",
        "classifier": "pad_cli.evaluation.scorers.classifier:classifier",
        "helpful": "pad_cli.evaluation.scorers.classifier:HELPFUL",
        "harmless": "pad_cli.evaluation.scorers.classifier:HARMLESS",
        "humor": "pad_cli.evaluation.scorers.classifier:HUMOR",
        "armorm": "pad_cli.evaluation.scorers.classifier:ARMORM",
        "reward": "pad_cli.evaluation.scorers.likelihood:reward",
    },
)
BENCHMARKS = Registry(
    "benchmarks",
    {
        "jsonl": "pad_cli.prompts.prompt_sets:load_jsonl",
        "prompts": "pad_cli.prompts.prompt_sets:load_shipped",
        "dataset": "pad_cli.prompts.prompt_sets:load_data_set",
        "psoups": "pad_cli.prompts.prompt_sets:load_jsonl",  # a former name, for recipes
        "helpsteer2": "pad_cli.prompts.prompt_sets:load_helpsteer2",
    },
)
METHODS = Registry(
    "methods",
    {
        "base": "pad_cli.evaluation.untrained_methods:Base",
        "pad": "pad_cli.evaluation.untrained_methods:Pad",
        "dpo": "pad_cli.evaluation.trained_methods:Dpo",
        "soup": "pad_cli.evaluation.trained_methods:Soup",
        "morl-dpo": "pad_cli.evaluation.trained_methods:MorlDpo",
        "mod": "pad_cli.evaluation.trained_methods:Mod",
        "sum": "pad_cli.evaluation.trained_methods:Sum",
        "prompt": "pad_cli.evaluation.untrained_methods:Prompt",
        "pad+prompt": "pad_cli.evaluation.untrained_methods:PadPrompt",
        "best-of-n": "pad_cli.evaluation.untrained_methods:BestOfN",
        "contrast": "pad_cli.evaluation.untrained_methods:Contrast",
        "control-vector": "pad_cli.evaluation.control_vector:ControlVector",
    },
)
MODEL_SOURCES = Registry("model_sources", {})
PAIR_SOURCES = Registry("pair_sources", {"contrast": "pad_cli.contrast.source:load_contrast"})
PRINCIPLES = Registry("principles", {})
"""What the reward model of a model source knows: each principle with a line about it, without loading a model."""

PAIR_FORMATS = Registry(
    "pair_formats",
    {
        "pairs": "pad_cli.pairs.formats:Pairs",
        "per_preference": "pad_cli.pairs.formats:PerPreference",
        "helpsteer2": "pad_cli.pairs.formats:HelpSteer2",
        "ultrafeedback": "pad_cli.pairs.formats:UltraFeedback",
        "ric": "pad_cli.pairs.formats:Ric",
        "safe_rlhf": "pad_cli.pairs.formats:SafeRlhf",
        "hh_rlhf": "pad_cli.pairs.formats:HhRlhf",
    },
)


def resolve_model(name: str) -> str:
    """A location that transformers can load: registered sources are built or found, anything else is left alone."""
    source = model_source(name)
    return name if source is None else str(MODEL_SOURCES.get(source)(name.removeprefix(source).removeprefix("/")))


def model_source(name: str) -> str | None:
    """The registered source of `source/model`, or `source` alone; None for what is a path, or can only be one."""
    if Path(name).exists():
        return None
    check_installed()
    source = name.partition("/")[0]
    return source if source in MODEL_SOURCES.names() else None


def check_installed() -> None:
    """Check that this package is installed: only then does Python find its entry points (PluginError)."""
    if not any(map(_is_own, _entry_points("model_sources", tuple(sys.path)))):
        raise PluginError(
            "This copy of pad_cli is not installed, or its installation is older than its code.",
            "Install it again, in a checkout with: pip install -e .",
        )
