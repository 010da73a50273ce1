"""Answers on a page with their tokens coloured by reward: blue what the reward model likes, orange what it does not.

Four depths of either colour; a token whose reward is near 0 is plain text. One scale serves the whole page.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_DEPTHS = (0.16, 0.32, 0.48, 0.64)  # opacity, faint to full; ink stays readable on all of them, in light and dark
_LIKED, _DISLIKED = "60, 120, 230", "225, 100, 20"
_END = "end"

_COLOURS = "\n".join(
    f"  .{letter}{depth} {{ background: rgba({colour}, {opacity}) }}"
    for letter, colour in (("p", _LIKED), ("n", _DISLIKED))
    for depth, opacity in enumerate(_DEPTHS, start=1)
)
STYLE = f"""{_COLOURS}
  .answer p span {{ border-radius: 3px }}
  .answer .end {{ font-size: .75rem; padding: 0 .3rem }}
  .key {{ font-size: .82rem; color: var(--faint) }} .key p {{ margin: .4rem 0 1rem }}
  .key label {{ color: var(--ink); font-size: .92rem; margin-right: 1rem; white-space: nowrap }}
  .key input {{ margin: 0 .35rem 0 0; vertical-align: -.1em }}
  .scale {{ white-space: nowrap }}
  .scale i {{ display: inline-block; width: 1rem; height: .8rem; vertical-align: -.1em }}
  body:has(#colours:not(:checked)) .answer p span {{ background: none }}
  body:has(#colours:not(:checked)) .answer .end {{ display: none }}
  body:has(#colours:not(:checked)) .scale {{ opacity: .35 }}
"""
"""CSS of what `coloured` and `key` give, on a page whose answers are paragraphs in `.answer`."""

Tokens = Sequence[tuple[str, float]]
"""Texts with their rewards in nats; one without text is the end of the answer."""


def full_colour(answers: Iterable[Tokens]) -> float:
    """The reward at which colours are full, to two digits; 0 if nothing is rewarded.

    Rewards from there on are half of all there is: most tokens have next to none, and a few outliers very much.
    """
    sizes = sorted((abs(reward) for tokens in answers for _, reward in tokens), reverse=True)
    rest, found = sum(sizes) / 2, 0.0
    for found in sizes:
        rest -= found
        if rest <= 0:
            break
    return float(f"{found:.1e}")


def coloured(tokens: Tokens, full: float) -> str:
    """An answer as HTML.

    Args:
        tokens: of the answer.
        full: the reward at which colours are full.
    """
    return "".join(_token(text, reward, full) for text, reward in tokens)


def key(full: float) -> str:
    """What the colours mean, with a box to switch them off, as HTML."""
    steps = range(1, len(_DEPTHS) + 1)
    names = (*(f"n{depth}" for depth in reversed(steps)), "", *(f"p{depth}" for depth in steps))
    patches = "".join(f'<i class="{name}"></i>' if name else "<i></i>" for name in names)
    return (
        '<div class="key"><label><input type="checkbox" id="colours" checked>Colour tokens by reward</label> '
        f'<span class="scale">-{full:g} nats {patches} +{full:g} nats</span>'
        "<p>What the reward model gives for each token under the asked preference, whoever wrote it; point at a "
        f"coloured token for its number. A small <i>{_END}</i> stands for the end of the answer.</p></div>"
    )


def _token(text: str, reward: float, full: float) -> str:
    depth = min(len(_DEPTHS), round(len(_DEPTHS) * abs(reward) / full)) if full else 0
    if not depth:
        return html.escape(text)
    name = f"{'p' if reward > 0 else 'n'}{depth}"
    if not text:
        return f' <span class="{name} end" title="{reward:+.2f}">{_END}</span>'
    word = text.lstrip() or text
    space = text[: len(text) - len(word)]
    return f'{space}<span class="{name}" title="{reward:+.2f}">{html.escape(word)}</span>'
