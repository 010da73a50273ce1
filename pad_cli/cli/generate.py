"""`pad generate`: steered answers to one prompt, to standard input, or to a file of prompts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pad_cli.cli.options import (
    GenerateRecipeName,
    Json,
    Overrides,
    Overwrite,
    Policy,
    Preferences,
    Quiet,
    RewardModel,
    read_as,
)
from pad_cli.errors import DataError, UsageError
from pad_cli.system.processes import processes
from pad_cli.system.progress import note, set_quiet, stage
from pad_cli.system.terminal import FittingTable, say, say_json, say_table

if TYPE_CHECKING:
    from pad_cli import DecodingSettings, PadEngine


def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to answer; standard input when absent or -.")] = None,
    pref: Preferences = None,
    weight: Annotated[
        float | None, typer.Option("--weight", "-w", help="Guidance weight; 0 is the policy alone.")
    ] = None,
    candidates: Annotated[int | None, typer.Option(help="The policy's top tokens that compete at each step.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; above, sample.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the likeliest candidates of this mass.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of sampling.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also show the policy's own answer.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it is decided.")] = False,
    explain: Annotated[
        str | None,
        typer.Option(metavar="FILE.html|-", help="Show what competed for each token: a page, or - for here."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSONL of prompts, each with its own preference if it likes.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --file: where answers go; run again to continue.")] = None,
    recipe: GenerateRecipeName = "embedded-generate",
    policy: Policy = None,
    reward_model: RewardModel = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer a prompt, steered to a preference.

    Without a recipe or models it uses the small embedded ones, which ship with pad.
    """
    set_quiet(quiet)
    if (file is None) != (out is None):
        raise UsageError("--file and --out go together.", "pad generate --file prompts.jsonl --out answers.jsonl")
    if file is not None and prompt is not None:
        raise UsageError("Give a prompt or --file, not both.", "Leave one out.")
    if sum([compare, as_json, stream, explain is not None, file is not None]) > 1 and not (compare and as_json):
        raise UsageError("--compare, --json, --stream, --explain and --file are different outputs.", "Choose one.")
    if file is None and processes().count > 1:
        raise UsageError("Several processes can only share a file of prompts.", "Give --file and --out.")
    text = None if file is not None else _read_prompt(prompt)
    import pad_cli

    if out is not None:
        pad_cli.check_answers_output(out, overwrite=overwrite)
    if explain not in (None, "-"):
        pad_cli.check_page_output(Path(explain), overwrite=overwrite)
    options = {
        "decoding.guidance_weight": weight,
        "decoding.candidates": candidates,
        "decoding.temperature": temperature,
        "decoding.top_p": top_p,
        "decoding.seed": seed,
        "decoding.max_new_tokens": max_new_tokens,
        "policy.model": policy,
        "reward_model": reward_model,
    }
    settings = read_as("generate", recipe, overrides, options=options)
    with pad_cli.inference_only():
        engine = pad_cli.PadEngine.from_recipe(settings)
    pad_cli.spare_threads(engine.policy)
    if file is not None and out is not None:
        count = pad_cli.generate_file(engine, file, out, pref or [], settings.decoding, overwrite=overwrite)
        if processes().main:
            say(f"{count} answered now, all of {file} in {out}", stderr=True)
        return
    assert text is not None
    if stream:
        for piece in engine.stream(text, engine.preference(pref or []), settings.decoding):
            say(piece, end="")
        say()
        return
    if explain is not None:
        _explain(engine, text, pref or [], settings.decoding, explain)
        return
    _answer(engine, text, pref or [], settings.decoding, compare, as_json)


def _answer(
    engine: PadEngine, prompt: str, pref: list[str], decoding: DecodingSettings, compare: bool, as_json: bool
) -> None:
    preference = engine.preference(pref)
    prompts, weights = ([prompt, prompt], [0.0, decoding.guidance_weight]) if compare else ([prompt], None)
    with stage("Answering"):
        answers = engine.generate(prompts, [preference] * len(prompts), decoding, weights, streams=["0"] * len(prompts))
    steered = answers[-1]
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
        if compare:
            row["base"] = answers[0].text
        say_json(row)
    elif compare:
        _side_by_side(answers[0].text, steered.text, f"{preference.describe()} (weight {decoding.guidance_weight:g})")
    else:
        say(steered.text)


def _explain(engine: PadEngine, prompt: str, pref: list[str], decoding: DecodingSettings, target: str) -> None:
    import pad_cli

    preference = engine.preference(pref)
    with stage("Answering"):
        choices = engine.explain(prompt, preference, decoding)
    if target != "-":
        pad_cli.write_whole(Path(target), pad_cli.heat_map(prompt, preference.describe(), choices))
        say(engine.read_answer([choice.token for choice in choices]).text)
        note(f"What competed for each token: {target}")
        return
    from rich.text import Text

    table = FittingTable("token", "policy alone", "candidates (probability, push in nats)", box=None)
    for choice in choices:
        style = "bold green" if choice.steered else ""
        rivals = [c for c in choice.candidates if c.probability >= 0.01 or c.text == choice.text][:4]
        listed = ", ".join(f"{c.text!r} {c.probability:.2f} {c.push:+.1f}" for c in rivals)
        table.add_row(Text(repr(choice.text), style=style), Text(repr(choice.plain_text)), Text(listed, style="dim"))
    say_table(table)


def _side_by_side(base: str, steered: str, title: str) -> None:
    from rich.text import Text

    table = FittingTable(expand=True, show_lines=True)
    for name in ("base", title):
        table.add_column(Text(name), ratio=1, overflow="fold")
    table.add_row(Text(base), Text(steered))
    say_table(table)


def _read_prompt(prompt: str | None) -> str:
    if prompt is None and sys.stdin.isatty():
        raise UsageError(
            "There is nothing to answer.", 'pad generate "How do I start with photography?" --pref humorous'
        )
    try:
        text = sys.stdin.read() if prompt in (None, "-") else prompt
        assert text is not None
        text.encode()  # bytes of another encoding may have come in as lone surrogates
    except UnicodeError as error:
        raise DataError("The prompt is not UTF-8 text.", hint="Convert it, for example with iconv.") from error
    if not text.strip():
        raise DataError("The prompt is empty.", hint='Say what to answer: pad generate "How do I start with chess?"')
    return text.strip()
