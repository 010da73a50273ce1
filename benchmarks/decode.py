"""Time steered decoding against plain decoding on an embedded policy, interleaved in one process: `make bench`.

Prints the median time per token of each way to decode and the median of the per-round ratios to plain decoding.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from pad_cli import DecodingSettings, PadEngine, load_reward_model
from pad_cli.models.language_model import load_language_model
from pad_cli.recipe import ModelSettings

TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="embedded/large")
    parser.add_argument("--reward-model", default="embedded/reward-model")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    policy = load_language_model(ModelSettings(model=arguments.policy))
    policy.model.generation_config.eos_token_id = None  # every answer has the same length
    engine = PadEngine(policy, load_reward_model(arguments.reward_model, backbone=policy))
    preference = engine.preference([engine.reward_model.principles[0]])
    for batch in (1, 8):
        times: dict[str, list[float]] = {"plain": [], "pad": []}
        for _ in range(arguments.rounds):
            for name, weight in (("plain", 0.0), ("pad", 1.0)):
                settings = DecodingSettings(guidance_weight=weight, max_new_tokens=TOKENS, batch_size=batch)
                start = time.process_time()
                answers = engine.generate(["How do I start with chess?"] * batch, [preference] * batch, settings)
                spent = time.process_time() - start
                times[name].append(spent / max(len(answer.token_ids) for answer in answers))
        ratio = statistics.median(pad / plain for pad, plain in zip(times["pad"], times["plain"], strict=True))
        per_step = {name: f"{1000 * statistics.median(values):.2f} ms" for name, values in times.items()}
        path = engine.path(DecodingSettings())
        print(f"batch {batch}, path {path}: plain {per_step['plain']}, pad {per_step['pad']} a step, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
