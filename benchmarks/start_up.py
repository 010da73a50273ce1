"""What a command costs before it works: its processor seconds beside those of importing torch and transformers.

Each is run in a process of its own, in turn, so that whatever else the machine does meets all of them. Processor
seconds are user and system time together, of all threads; medians are compared, and quartiles printed with them.

    python start_up.py --rounds 9 --out runs/start-up.json
    python start_up.py --policy path/to/policy --reward-model path/to/reward-model
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median, quantiles

PROMPT = ("How do I start with photography?", "--pref", "humorous")
IMPORTS = "import torch, transformers"


def commands(models: list[str]) -> dict[str, list[str]]:
    """What is measured, by name; the first is what the others are compared with."""
    pad = [sys.executable, "-m", "pad_cli"]
    return {
        IMPORTS: [sys.executable, "-c", IMPORTS],
        "pad generate": [*pad, "generate", *PROMPT, "--quiet", *models],
        "pad generate --stream": [*pad, "generate", *PROMPT, "--quiet", "--stream", *models],
        "pad --help": [*pad, "--help"],
        "pad list": [*pad, "list"],
        "pad recipe show": [*pad, "recipe", "show", "embedded-generate"],
    }


def run(command: list[str]) -> tuple[float, float]:
    """Processor seconds and seconds on the clock of one run."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, time.perf_counter() - start


def measure(named: dict[str, list[str]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """`rounds` runs of each in turn, after one that is not counted: it fills the disk cache and compiles bytecode."""
    for command in named.values():
        run(command)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in named}
    for _ in range(rounds):
        for name, command in named.items():
            taken[name].append(run(command))
    return taken


def row(name: str, processor: Iterable[float], clock: Iterable[float], against: float) -> dict[str, object]:
    used = sorted(processor)
    low, _, high = quantiles(used, n=4)
    return {
        "command": name,
        "processor_seconds": round(median(used), 2),
        "quartiles": [round(low, 2), round(high, 2)],
        "times_the_imports": round(median(used) / against, 2),
        "seconds": round(median(clock), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="at least 2")
    parser.add_argument("--policy", help="in place of the embedded one; give --reward-model, too")
    parser.add_argument("--reward-model")
    parser.add_argument("--out", type=Path, help="also write the table as JSON")
    options = parser.parse_args()
    if (options.policy is None) != (options.reward_model is None) or options.rounds < 2:
        parser.error("--policy and --reward-model go together, and --rounds is at least 2")
    models = [] if options.policy is None else ["--policy", options.policy, "--reward-model", options.reward_model]
    taken = measure(commands(models), options.rounds)
    against = median(used for used, _ in taken[IMPORTS])
    rows = [row(name, *zip(*runs, strict=True), against) for name, runs in taken.items()]
    for each in rows:
        print(
            "{command:<28}{processor_seconds:>6} s {quartiles!s:<15}{times_the_imports:>6} x{seconds:>7} s".format(
                **each
            )
        )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"cpus": os.cpu_count(), "rounds": options.rounds, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
