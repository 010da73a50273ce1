"""`pad generate`: steered answers to one prompt, to standard input, or to a file of prompts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pad_cli.cli.options import (
    GenerateRecipeName,
    Json,
    Overrides,
    Overwrite,
    Policy,
    Preferences,
    Quiet,
    RewardModel,
    Weight,
    read_generate,
)
from pad_cli.errors import DataError, UsageError
from pad_cli.system.processes import processes
from pad_cli.system.progress import note, stage
from pad_cli.system.terminal import say, say_json, say_table, text_table

if TYPE_CHECKING:
    from pad_cli.decoding.engine import PadEngine
    from pad_cli.preference import Preference
    from pad_cli.recipe import DecodingSettings


def generate(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; read from standard input if omitted or -.")] = None,
    pref: Preferences = None,
    weight: Weight = None,
    candidates: Annotated[int | None, typer.Option(help="The policy's top tokens that compete at each step.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; above, sample.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling among the candidates (0 to 1).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of sampling.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also show the policy's own answer.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it is generated.")] = False,
    explain: Annotated[
        str | None, typer.Option(metavar="FILE.html|-", help="Show each token's candidates: HTML file, or - to print.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="JSONL of prompts, optionally each with a preference.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --file: where answers go; run again to continue.")] = None,
    recipe: GenerateRecipeName = None,
    policy: Policy = None,
    reward_model: RewardModel = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer a prompt, steered to a preference.

    Without a recipe or models it uses the tiny embedded ones, which ship with pad; `--policy smollm2` is a real one.
    """
    if (file is None) != (out is None):
        raise UsageError("--file and --out go together.", "pad generate --file prompts.jsonl --out answers.jsonl")
    if file is not None and prompt is not None:
        raise UsageError("Give a prompt or --file, not both.", "Leave one out.")
    if sum([compare, as_json, stream, explain is not None, file is not None]) > 1 and not (compare and as_json):
        raise UsageError("Only --compare and --json can be combined; not --stream, --explain or --file.", "Choose one.")
    if file is None and processes().count > 1:
        raise UsageError("Several processes can only share a file of prompts.", "Give --file and --out.")
    text = "" if file is not None else _read_prompt(prompt)
    settings = read_generate(
        recipe,
        overrides,
        policy,
        reward_model,
        guidance_weight=weight,
        candidates=candidates,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        max_new_tokens=max_new_tokens,
    )
    from pad_cli.models.inference_only import inference_only, spare_threads

    with inference_only():
        from pad_cli.decoding.engine import PadEngine

        if out is not None:
            from pad_cli.decoding.batch import check_answers_output, generate_file

            check_answers_output(out, overwrite=overwrite)
        if explain is not None and explain != "-":
            from pad_cli.decoding.heat_map import check_page_output

            check_page_output(Path(explain), overwrite=overwrite)
        engine = PadEngine.from_recipe(settings)
    spare_threads(engine.policy)
    if file is not None and out is not None:
        count = generate_file(engine, file, out, pref or [], settings.decoding, overwrite=overwrite)
        if processes().main:
            say(f"{count} answered now; {out} has the answers to all of {file}", stderr=True)
        return
    preference = engine.preference(pref or [])
    if stream:
        for piece in engine.stream(text, preference, settings.decoding):
            say(piece, end="")
        say()
    elif explain is not None:
        _explain(engine, text, preference, settings.decoding, explain)
    else:
        _answer(engine, text, preference, settings.decoding, compare, as_json)


def _answer(
    engine: PadEngine, prompt: str, preference: Preference, decoding: DecodingSettings, compare: bool, as_json: bool
) -> None:
    prompts, weights = ([prompt, prompt], [0.0, decoding.guidance_weight]) if compare else ([prompt], None)
    with stage("Answering"):
        answers = engine.generate(prompts, [preference] * len(prompts), decoding, weights, streams=["0"] * len(prompts))
    base, steered = answers[0], answers[-1]
    if as_json:
        row: dict[str, Any] = {
            "prompt": prompt,
            "preference": preference.describe(),
            "always": engine.always,
            "guidance_weight": decoding.guidance_weight,
            "text": steered.text,
            "finish_reason": steered.finish_reason,
            "tokens": len(steered.token_ids),
            "policy": engine.policy.name,
        }
        say_json({**row, "base": base.text} if compare else row)
    elif compare:
        title = f"{preference.describe()} (weight {decoding.guidance_weight:g})"
        say_table(text_table(("base", title), [(base.text, steered.text)], side_by_side=True))
    else:
        say(steered.text)


def _explain(engine: PadEngine, prompt: str, preference: Preference, decoding: DecodingSettings, target: str) -> None:
    with stage("Answering"):
        choices = engine.explain(prompt, preference, decoding)
    if target != "-":
        from pad_cli.decoding.heat_map import heat_map
        from pad_cli.system.runs import write_whole

        write_whole(Path(target), heat_map(prompt, preference.describe(), choices))
        say(engine.read_answer([choice.token for choice in choices]).text)
        note(f"What competed for each token: {target}")
        return
    rows = []
    for choice in choices:
        likely = [c for c in choice.candidates if c.probability >= 0.01 or c.text == choice.text][:4]
        listed = ", ".join(f"{c.text!r} {c.probability:.2f} {c.push:+.1f}" for c in likely)
        token = Text(repr(choice.text), style="bold green" if choice.steered else "")
        rows.append((token, repr(choice.plain_text), listed))
    say_table(text_table(("token", "policy alone", "candidates (probability, push in nats)"), rows))


def _read_prompt(prompt: str | None) -> str:
    if prompt is None and sys.stdin.isatty():
        raise UsageError(
            "There is nothing to answer.", 'pad generate "How do I start with photography?" --pref humorous'
        )
    try:
        text = sys.stdin.read() if prompt is None or prompt == "-" else prompt
        text.encode()  # bytes of another encoding may have come in as lone surrogates
    except UnicodeError as error:
        raise DataError("The prompt is not UTF-8 text.", hint="Convert it, for example with iconv.") from error
    if not text.strip():
        raise DataError("The prompt is empty.", hint='Say what to answer: pad generate "How do I start with chess?"')
    return text.strip()
