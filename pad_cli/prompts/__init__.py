"""Benchmarks (floor 3): prompts x preferences, by name, from files or data sets. The embedded one is in `world/`."""

from pad_cli.prompts.files import load_jsonl
from pad_cli.prompts.load import load_benchmark, load_benchmarks, own_group

__all__ = ["load_benchmark", "load_benchmarks", "load_jsonl", "own_group"]
