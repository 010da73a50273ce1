"""Lookup by name (floor 1): a literal table for each thing outsiders extend, plus one entry-point group.

An entry is `name -> "module:attribute"`, imported when first asked for. A package adds its own by declaring an entry
point in the group `pad.<kind>`, for example

    [project.entry-points."pad.scorers"]
    politeness = "my_package.politeness:PolitenessScorer"
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pad_cli.errors import PadError, PluginError, UsageError, did_you_mean


@dataclass(frozen=True)
class Registry:
    """Names of one kind. `kind` is the plural noun used in messages and in the entry-point group."""

    kind: str
    table: Mapping[str, str]

    def names(self) -> list[str]:
        return sorted({*self.table, *self._plugins()})

    def target(self, name: str) -> str | None:
        """`module:attribute` of what has that name."""
        return self.table.get(name) or self._plugins().get(name)

    def get(self, name: str) -> Any:
        """Import and return what `name` stands for.

        Raises:
            UsageError: nothing has that name.
            PluginError: it has, but cannot be imported.
        """
        target = self.target(name)
        if target is None:
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

    def _plugins(self) -> dict[str, str]:
        return {point.name: f"{point.module}:{point.attr}" for point in entry_points(group=f"pad.{self.kind}")}


SCORERS = Registry(
    "scorers",
    {
        "hit": "pad_cli.world.scorers:HIT",
        "all": "pad_cli.world.scorers:ALL",
        "present": "pad_cli.world.scorers:Present",
        "parses": "pad_cli.world.scorers:PARSES",
        "on_topic": "pad_cli.world.scorers:ON_TOPIC",
        "repetition": "pad_cli.world.scorers:REPETITION",
        "distinct_2": "pad_cli.evaluation.scorers.text_statistics:DISTINCT_2",
        "repeated_4grams": "pad_cli.evaluation.scorers.text_statistics:REPEATED_4GRAMS",
        "words": "pad_cli.evaluation.scorers.text_statistics:WORDS",
        "distinct_n": "pad_cli.evaluation.scorers.text_statistics:distinct_n",
        "repeated_ngrams": "pad_cli.evaluation.scorers.text_statistics:repeated_ngrams",
        "readability": "pad_cli.evaluation.scorers.text_statistics:readability",
        "sentiment": "pad_cli.evaluation.scorers.text_statistics:sentiment",
        "perplexity": "pad_cli.evaluation.scorers.likelihood:perplexity",
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
        "embedded": "pad_cli.world.benchmark:load",
        "jsonl": "pad_cli.prompts.files:load_jsonl",
        "prompts": "pad_cli.prompts.files:load_shipped",
        "dataset": "pad_cli.prompts.data_set:load_data_set",
        "psoups": "pad_cli.prompts.published:load_psoups",
        "helpsteer2": "pad_cli.prompts.published:load_helpsteer2",
    },
)
METHODS = Registry(
    "methods",
    {
        "base": "pad_cli.evaluation.methods.untrained:Base",
        "pad": "pad_cli.evaluation.methods.untrained:Pad",
        "dpo": "pad_cli.evaluation.methods.trained:Dpo",
        "soup": "pad_cli.evaluation.methods.trained:Soup",
        "morl-dpo": "pad_cli.evaluation.methods.trained:MorlDpo",
        "mod": "pad_cli.evaluation.methods.trained:Mod",
        "sum": "pad_cli.evaluation.methods.trained:Sum",
        "prompt": "pad_cli.evaluation.methods.untrained:Prompt",
        "pad+prompt": "pad_cli.evaluation.methods.untrained:PadPrompt",
        "best-of-n": "pad_cli.evaluation.methods.untrained:BestOfN",
        "contrast": "pad_cli.evaluation.methods.untrained:Contrast",
    },
)
MODEL_SOURCES = Registry("model_sources", {"embedded": "pad_cli.world.models:model_directory"})
PAIR_SOURCES = Registry("pair_sources", {"embedded": "pad_cli.world.preference_pairs:load"})
PRINCIPLES = Registry("principles", {"embedded": "pad_cli.world.grammar:trained_principles"})
"""What the reward model of a model source knows: each principle with a line about it, without loading a model."""

PAIR_FORMATS = Registry(
    "pair_formats",
    {
        "pairs": "pad_cli.pairs.formats.plain:Pairs",
        "per_preference": "pad_cli.pairs.formats.plain:PerPreference",
        "helpsteer2": "pad_cli.pairs.formats.rated:HelpSteer2",
        "ultrafeedback": "pad_cli.pairs.formats.rated:UltraFeedback",
        "ric": "pad_cli.pairs.formats.rated:Ric",
        "safe_rlhf": "pad_cli.pairs.formats.compared:SafeRlhf",
        "hh_rlhf": "pad_cli.pairs.formats.compared:HhRlhf",
    },
)


def resolve_model(name: str) -> str:
    """A location that transformers can load: registered sources are built or found, anything else is left alone."""
    source, slash, rest = name.partition("/")
    if slash and source in MODEL_SOURCES.names() and not Path(name).exists():
        return str(MODEL_SOURCES.get(source)(rest))
    return name
