"""Accuracy against wall time: `pad train-rm` with preference heads, and plain TRL DPO with LoRA on the same pairs.

    python benchmarks/time_to_accuracy.py --model DIR --train train.jsonl --dev dev.jsonl --out runs/time-to-accuracy

Both are counted by what training takes: reading the training answers and the optimiser's steps, not the start of the
program, loading, and measuring. Ours is run anew on more and more prompts, each in a `PAD_HOME` of its own. TRL's
trainer gets the preference as text in the prompt (it knows no other way), and is measured where its clock passes
`--marks`.
Both are measured by the same function: log-likelihood ratio to the base model over the whole vocabulary, in bfloat16.

Writes results.json, and curve.svg (which needs matplotlib: pip install matplotlib).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from pad_cli import load_reward_model
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.scoring import all_log_probs
from pad_cli.recipe import ModelSettings
from pad_cli.records import as_messages

_TEMPLATE = "{prompt}\nAnswer in this style: {preference}"

Rows = list[dict[str, Any]]
Point = dict[str, float]


def main(
    model: Annotated[Path, typer.Option(help="Directory of a causal language model.")],
    train: Annotated[Path, typer.Option(help="JSONL of training pairs.")],
    dev: Annotated[Path, typer.Option(help="JSONL of validation pairs.")],
    out: Annotated[Path, typer.Option(help="Directory of the results.")],
    prompts: Annotated[str, typer.Option(help="Numbers of prompts that ours is trained on.")] = "16,64,512",
    marks: Annotated[str, typer.Option(help="Training seconds after which TRL is measured.")] = "120,240,480",
    answer_tokens: Annotated[int, typer.Option(help="Answers are cut at this many tokens.")] = 96,
) -> None:
    """Run both, and draw accuracy over time."""
    out.mkdir(parents=True, exist_ok=True)
    settings = ModelSettings(model=str(model), dtype="bfloat16")
    rows, judged = _rows(train), _rows(dev)
    ours = [_ours(settings, rows, judged, out, int(count), answer_tokens) for count in prompts.split(",")]
    theirs = _trl(settings, rows, judged, out / "trl", [float(mark) for mark in marks.split(",")], answer_tokens)
    (out / "results.json").write_text(json.dumps({"pad": ours, "trl": theirs}, indent=2) + "\n")
    for last in theirs[-1:]:
        sooner = [point for point in ours if point["accuracy"] >= last["accuracy"]]
        for first in sooner[:1]:
            print(
                f"TRL: {last['accuracy']:.3f} after {last['seconds']:.0f} s; ours: {first['accuracy']:.3f} after "
                f"{first['seconds']:.1f} s, {last['seconds'] / first['seconds']:.0f} times sooner"
            )
    (out / "curve.svg").write_text(_chart({"pad train-rm, heads": ours, "TRL DPO, LoRA": theirs}))
    print(f"Written to {out}: results.json, curve.svg")


def _rows(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _ours(settings: ModelSettings, rows: Rows, judged: Rows, out: Path, prompts: int, answer_tokens: int) -> Point:
    """One run on the pairs of so many prompts."""
    kept = list(dict.fromkeys(json.dumps(row["prompt"]) for row in rows))[:prompts]
    directory = out / f"ours-{len(kept)}"
    directory.mkdir(parents=True, exist_ok=True)
    subset = directory / "train.jsonl"
    subset.write_text("".join(json.dumps(row) + "\n" for row in rows if json.dumps(row["prompt"]) in set(kept)))
    options = {
        "backbone.model": settings.model,
        "backbone.dtype": settings.dtype,
        "data.train": subset,
        "data.max_answer_tokens": answer_tokens,
    }
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "pad_cli", "train-rm", "gemma-270m", "--quiet", "--out", str(directory / "run")]
        + [word for key, value in options.items() for word in ("--set", f"{key}={value}")],
        check=True,
        env={**os.environ, "PAD_HOME": str(directory / "home")},
        stdout=subprocess.DEVNULL,
    )
    whole = time.monotonic() - started
    report = json.loads((directory / "run" / "report.json").read_text(encoding="utf-8"))
    seconds = sum(stage["seconds"] for stage in report["stages"])
    backbone = load_language_model(settings)
    reward_model = load_reward_model(str(directory / "run"), backbone=backbone)
    names = list(reward_model.heads.names)
    weights = torch.eye(len(names))[[names.index(row["preference"]) for row in judged]]

    def personalised(sequences: list[Any]) -> torch.Tensor:
        return all_log_probs(backbone, sequences, reward_model.heads, torch.cat([weights, weights]))

    plain = _sequences(backbone, judged, answer_tokens, "{prompt}")
    accuracy = _accuracy(personalised(plain) - all_log_probs(backbone, plain))
    print(f"pad, {len(kept)} prompts: {seconds:.1f} s ({whole:.0f} s in all), accuracy {accuracy:.3f}", flush=True)
    return {"prompts": len(kept), "seconds": seconds, "whole_seconds": whole, "accuracy": accuracy}


def _sequences(backbone: LanguageModel, rows: Rows, answer_tokens: int, template: str) -> list[Any]:
    """(prompt, answer) tokens of all chosen and then all rejected answers."""
    return [
        (
            tuple(encode_prompt(backbone.tokenizer, as_messages(template.format(**row)))),
            tuple(encode_answer(backbone.tokenizer, row[side])[:answer_tokens]),
        )
        for side in ("chosen", "rejected")
        for row in rows
    ]


def _accuracy(ratios: torch.Tensor) -> float:
    chosen, rejected = ratios.chunk(2)
    return float((chosen > rejected).float().mean())


def _trl(
    settings: ModelSettings, rows: Rows, judged: Rows, directory: Path, marks: list[float], answer_tokens: int
) -> list[Point]:
    """Accuracy of TRL's implicit reward at some times of its training."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    backbone = load_language_model(settings)
    tokenizer = backbone.tokenizer

    def worded(row: dict[str, Any]) -> dict[str, str]:
        """What `_sequences` makes of the row, as the texts that TRL takes."""
        tokens = {
            side: tokenizer(f" {row[side].lstrip()}", add_special_tokens=False) for side in ("chosen", "rejected")
        }
        cut = {side: tokenizer.decode(encoded["input_ids"][:answer_tokens]) for side, encoded in tokens.items()}
        return {"prompt": f"Instruction: {_TEMPLATE.format(**row).strip()}\nResponse:", **cut}

    sequences = _sequences(backbone, judged, answer_tokens, _TEMPLATE)
    reference = all_log_probs(backbone, sequences)
    points: list[Point] = []

    def measure(seconds: float, steps: int) -> None:
        backbone.model.eval()
        accuracy = _accuracy(all_log_probs(backbone, sequences) - reference)
        backbone.model.train()
        points.append({"steps": steps, "seconds": seconds, "accuracy": accuracy})
        print(f"TRL: {steps} steps in {seconds:.0f} s, accuracy {accuracy:.3f}", flush=True)

    trainer = DPOTrainer(
        model=backbone.model,
        args=DPOConfig(
            output_dir=str(directory),
            per_device_train_batch_size=4,
            learning_rate=1e-4,
            beta=0.1,
            max_steps=100_000,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=Dataset.from_list([worded(row) for row in rows]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[_clock(marks, measure)],
    )
    trainer.train()
    return points


def _clock(marks: list[float], measure: Callable[[float, int], None]) -> Any:
    """Measures when the training's own time passes each mark, and ends it after the last."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        started = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.monotonic()

        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            passed = time.monotonic() - self.started
            if marks and passed >= marks[0]:
                while marks and passed >= marks[0]:
                    marks.pop(0)
                measure(passed, state.global_step)
                self.started = time.monotonic() - passed  # measuring is not training
            control.should_training_stop = not marks

    return Clock()


def _chart(curves: dict[str, list[Point]]) -> str:
    """Accuracy over seconds on a logarithmic scale, as an SVG."""
    import matplotlib

    matplotlib.use("svg")
    from io import StringIO

    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for label, points in curves.items():
        axes.plot([p["seconds"] for p in points], [p["accuracy"] for p in points], marker="o", label=label)
    axes.set(xscale="log", xlabel="seconds of training", ylabel="pair accuracy on validation pairs", ylim=(0.4, 0.9))
    axes.axhline(0.5, color="grey", linewidth=0.5)
    axes.legend()
    content = StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


if __name__ == "__main__":
    typer.run(main)
