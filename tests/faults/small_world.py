"""The embedded world made small, so that it can be built many times: its real builder, with shorter plans."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from pathlib import Path

from pad_cli import embedded
from pad_cli.recipe import read_recipe
from pad_cli.world import preference_pairs

_STEPS = 12
_OVERRIDES = ["data.options.prompts=14", "stages.0.steps=8", "stages.1.steps=6"]
_WORKER = f'#!/bin/sh\nshift 2\nexec "{sys.executable}" -m tests.faults.small_world "$@"\n'
_ROOT = Path(__file__).parent.parent.parent


class Shrink:
    """Makes the world small in this process and in those that it starts for the policies."""

    def __call__(self) -> None:
        shrink()
        worker = Path(os.environ["PAD_HOME"]).parent.with_suffix(".python")
        worker.write_text(_WORKER, encoding="utf-8")
        worker.chmod(0o755)
        sys.executable = str(worker)
        os.environ["PYTHONPATH"] = str(_ROOT)


def shrink() -> None:
    embedded._POLICIES = {
        name: dataclasses.replace(
            policy, plan=dataclasses.replace(policy.plan, steps=_STEPS, batch_tokens=256), answers=240, glossary=60
        )
        for name, policy in embedded._POLICIES.items()
    }
    preference_pairs._VALIDATION_PAIRS = 10
    embedded.read_recipe = functools.partial(read_recipe, overrides=_OVERRIDES)


if __name__ == "__main__":
    shrink()
    embedded._work(Path(sys.argv[1]))
