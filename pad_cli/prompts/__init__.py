"""Benchmarks (floor 3): prompts x preferences, by name, from files or data sets. The embedded one is in `world/`."""

from pad_cli.prompts.benchmarks import Prompt, distinct, load_benchmark, load_benchmarks, own_group
from pad_cli.prompts.prompt_sets import load_jsonl

__all__ = ["Prompt", "distinct", "load_benchmark", "load_benchmarks", "load_jsonl", "own_group"]
