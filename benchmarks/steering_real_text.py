"""Does a reward model steer real text? Asked-preference rate by an independent classifier, beside what it costs.

    python benchmarks/steering_real_text.py --model DIR --reward-model runs/gemma-270m \\
        --train train.jsonl --dev dev.jsonl --out runs/steering

For data in which every answer was written for one preference. Every dev prompt is answered under every preference.
The classifier (tf-idf and logistic regression) is trained on the training answers and knows nothing of the reward
model. Its accuracy on people's own dev answers, cut to the same length, is its ceiling. Perplexity is the language
model's own, of the text after its prompt. The judge can be fooled by lists of numbers, which neither perplexity nor
repetition sees: `letters` is the share of characters that are letters.

Prints a table, and writes results.json and answers.jsonl.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from pad_cli import DecodingSettings, PadEngine, load_recipe
from pad_cli.evaluation.scorers.text_statistics import DISTINCT_2, REPEATED_4GRAMS
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.scoring import all_log_probs
from pad_cli.records import as_messages

_WORDS = 38  # that 48 tokens hold, about


def main(
    model: Annotated[Path, typer.Option(help="Directory of the language model that is steered.")],
    reward_model: Annotated[str, typer.Option(help="A trained reward model.")],
    train: Annotated[Path, typer.Option(help="JSONL of training pairs.")],
    dev: Annotated[Path, typer.Option(help="JSONL of validation pairs.")],
    out: Annotated[Path, typer.Option(help="Directory of the results.")],
    weights: Annotated[str, typer.Option(help="Guidance weights.")] = "0,1,2",
    temperatures: Annotated[str, typer.Option(help="0 is greedy.")] = "0.7,0",
    new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 48,
    no_repeat: Annotated[int, typer.Option(help="The policy repeats no n-gram of this size; 0: it may.")] = 0,
) -> None:
    """Steer, judge, and count what it costs."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in dev.read_text(encoding="utf-8").splitlines() if line.strip()]
    judge = _classifier([json.loads(line) for line in train.read_text(encoding="utf-8").splitlines() if line.strip()])
    names = sorted({row["preference"] for row in rows})
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    recipe = {"kind": "generate", "policy": {"model": str(model), "dtype": "bfloat16"}, "reward_model": reward_model}
    engine = PadEngine.from_recipe(load_recipe(recipe))
    items = [(prompt, name) for prompt in prompts for name in names]
    human = [(row["prompt"], row["preference"], _cut(row["chosen"])) for row in rows]
    results = [{"temperature": None, "weight": None, **_measure(engine.policy, judge, human)}]
    with (out / "answers.jsonl").open("w", encoding="utf-8") as file:
        for temperature in map(float, temperatures.split(",")):
            for weight in map(float, weights.split(",")):
                settings = DecodingSettings(
                    temperature=temperature,
                    candidates=20,
                    max_new_tokens=new_tokens,
                    no_repeat_ngram_size=no_repeat,
                    batch_size=64,
                )
                texts = _answers(engine, items, settings, weight)
                answered = [(prompt, name, text) for (prompt, name), text in zip(items, texts, strict=True)]
                cell = {"temperature": temperature, "weight": weight}
                results.append({**cell, **_measure(engine.policy, judge, answered)})
                for prompt, name, text in answered:
                    row = {**cell, "prompt": prompt, "preference": name, "text": text}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    _show(results)


def _classifier(rows: list[dict[str, Any]]) -> Pipeline:
    judge = make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2), LogisticRegression(C=3, max_iter=1000))
    return judge.fit([_cut(row["chosen"]) for row in rows], [row["preference"] for row in rows])


def _cut(text: str) -> str:
    return " ".join(text.split()[:_WORDS])


def _answers(engine: PadEngine, items: list[tuple[str, str]], settings: DecodingSettings, weight: float) -> list[str]:
    preferences = [engine.preference([name]) for _, name in items]
    answers = engine.generate([prompt for prompt, _ in items], preferences, settings, [weight] * len(items))
    return [_cut(answer.text) for answer in answers]


def _measure(policy: LanguageModel, judge: Pipeline, answered: list[tuple[str, str, str]]) -> dict[str, float]:
    """Means over the answers; perplexity is that of all their tokens together."""
    texts = [text for *_, text in answered]
    hits = [guess == name for guess, (_, name, _) in zip(judge.predict(texts), answered, strict=True)]
    rate = sum(hits) / len(hits)
    sequences = [
        (
            tuple(encode_prompt(policy.tokenizer, as_messages(prompt))),
            tuple(policy.tokenizer(f" {text.lstrip()}", add_special_tokens=False)["input_ids"]),
        )
        for prompt, _, text in answered
        if text.strip()
    ]
    total = float(all_log_probs(policy, sequences, title="Perplexity").sum())
    return {
        "n": len(texts),
        "rate": rate,
        "stderr": math.sqrt(rate * (1 - rate) / len(hits)),
        "perplexity": math.exp(-total / sum(len(answer) for _, answer in sequences)),
        "repeated_4grams": sum(REPEATED_4GRAMS(text, {}) for text in texts) / len(texts),
        "distinct_2": sum(DISTINCT_2(text, {}) for text in texts) / len(texts),
        "letters": sum(map(str.isalpha, "".join(texts))) / len("".join("".join(texts).split())),
    }


def _show(results: list[dict[str, Any]]) -> None:
    figures = ("n", "asked preference", "of ceiling", "perplexity", "repeated 4-grams", "distinct-2", "letters")
    table = Table("temperature", "weight", *figures)
    ceiling = results[0]["rate"]
    for row in results:
        name = "people" if row["temperature"] is None else f"{row['temperature']:g}"
        table.add_row(
            name,
            "" if row["weight"] is None else f"{row['weight']:g}",
            str(row["n"]),
            f"{row['rate']:.3f} ± {1.96 * row['stderr']:.3f}",
            f"{row['rate'] / ceiling:.2f}",
            f"{row['perplexity']:.2f}",
            f"{row['repeated_4grams']:.3f}",
            f"{row['distinct_2']:.3f}",
            f"{row['letters']:.3f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
