"""Draws one prompt's answers under several preferences as SVG, with what guidance pushed: the picture of the README.

    python benchmarks/steering_picture.py --out docs/images/steering.svg

Numbers above a token are nats of push (guidance weight times reward, relative to the average candidate), where they are
at least one; a line under a token says that the policy alone would have written another.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pad_cli import PadEngine, read_recipe
from pad_cli.system.runs import write_whole

LETTER, LINE, NUMBER, GAP, COLUMNS = 7.8, 22, 16, 14, 64  # a letter's width, heights (pixels); letters in a line
LEFT, MARGIN = 172, 20
SHOWN, FULL = 1.0, 5.0  # nats: the least that is drawn, and where colour is full
STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de } text { fill: #1f2328 } .faint { fill: #59636e }
  .up { fill: #1a7f37 } .down { fill: #cf222e } .other { stroke: #1a7f37; stroke-width: 2 }
  text { font: 13px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre }
  .small { font-size: 11px } .bold { font-weight: 700 }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #3d444d } text { fill: #f0f6fc } .faint { fill: #9198a1 }
    .up { fill: #3fb950 } .down { fill: #f85149 } .other { stroke: #3fb950 }
  }"""

KEY = (
    "+ so many nats: how far guidance pushed the token up, where it is one or more.",
    "Underlined: the policy alone would have said something else there.",
)

Token = tuple[str, float, bool]
"""Its text, its push in nats, and whether the policy alone would have written another."""


def main(
    out: Annotated[Path, typer.Option(help="The picture.")],
    recipe: Annotated[str, typer.Option(help="A generate recipe: a file or a shipped name.")] = "embedded-generate",
    prompt: Annotated[str, typer.Option(help="What is answered.")] = "How do I start with photography?",
    pref: Annotated[list[str] | None, typer.Option(help="One answer's preference; repeat.")] = None,
) -> None:
    """Answer, and draw."""
    settings = read_recipe(recipe)
    engine = PadEngine.from_recipe(settings)

    def tokens(specification: list[str]) -> list[Token]:
        choices = engine.explain(prompt, engine.preference(specification), settings.decoding)
        return [(choice.text, choice.push, choice.steered) for choice in choices[:-1]]  # without the end of sequence

    asked = pref or ["humorous", "formal", "formal, humorous", "concise"]
    answers = {"no preference": tokens([]), **{preference: tokens([preference]) for preference in asked}}
    write_whole(out, draw(prompt, answers))
    print(out)


def draw(prompt: str, answers: dict[str, Sequence[Token]]) -> str:
    """The picture.

    Args:
        prompt: what was answered.
        answers: preference to tokens.
    """
    y, drawn = 32, [_text(MARGIN, 32, prompt, "bold")]
    for preference, tokens in answers.items():
        y += GAP
        for number, line in enumerate(_lines(tokens)):
            y += LINE + NUMBER * any(abs(push) >= SHOWN for _, push, _ in line)
            drawn += [*_line(line, y), *([] if number else [_text(MARGIN, y, preference, "faint")])]
    y += GAP
    for line in KEY:
        y += LINE - 4
        drawn.append(_text(MARGIN, y, line, "faint small"))
    width, height = LEFT + COLUMNS * LETTER + MARGIN, y + 18
    told = html.escape(f"Answers to '{prompt}' under: {'; '.join(answers)}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" viewBox="0 0 {width:.0f} {height}" role="img">'
        f"<title>{told}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="card" x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1}" rx="8"/>\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def _lines(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Broken before words, never within one."""
    words: list[list[Token]] = []
    for token in tokens:
        if token[0].startswith(" ") or not words:
            words.append([])
        words[-1].append(token)
    line: list[Token] = []
    for word in words:
        if len("".join(text for text, *_ in [*line, *word]).strip()) > COLUMNS:
            yield line
            line = []
        line = [*line, *word]
    yield line


def _line(line: Sequence[Token], y: int) -> Iterator[str]:
    x = float(LEFT)
    for number, (text, push, other) in enumerate(line):
        shown = text if number else text.lstrip()
        word = shown.lstrip()
        start, width = x + LETTER * (len(shown) - len(word)), LETTER * len(word)
        if abs(push) >= SHOWN:
            side, opacity = ("up" if push > 0 else "down"), 0.15 + 0.35 * min(1.0, abs(push) / FULL)
            yield (
                f'<rect class="{side}" x="{start - 2:.1f}" y="{y - 14}" width="{width + 4:.1f}" height="19" rx="3"'
                f' fill-opacity="{opacity:.2f}"/>'
            )
            yield _text(start, y - 18, f"{push:+.1f}", f"{side} small")
        if other:
            yield f'<line class="other" x1="{start:.1f}" y1="{y + 6}" x2="{start + width:.1f}" y2="{y + 6}"/>'
        yield _text(start, y, word)
        x += LETTER * len(shown)


def _text(x: float, y: float, text: str, name: str = "") -> str:
    length = "" if "small" in name else f' textLength="{LETTER * len(text):.1f}"'
    named = f' class="{name}"' if name else ""
    return f'<text x="{x:.1f}" y="{y}"{length}{named}>{html.escape(text)}</text>'


if __name__ == "__main__":
    typer.run(main)
