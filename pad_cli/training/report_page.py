"""The training report as one self-contained HTML page, light or dark as its reader has it."""

from __future__ import annotations

import html

from pad_cli.reports.charts import interval_bar
from pad_cli.reports.html import document, section_html
from pad_cli.training.baselines import Verdict
from pad_cli.training.facts import TrainingFacts, warnings_of
from pad_cli.training.metrics import Share
from pad_cli.training.report_content import Cell, Judgement, chance, judgement, sections, summary

_CLASSES = {"beats": "beats", "does not beat": "beats-not", "is worse than": "worse"}

_STYLE = """
  .verdicts, .warnings { list-style: none; padding: 0 }
  .verdicts li, .warnings li { border-left: 5px solid; padding: .3rem .8rem; margin: .5rem 0 }
  .verdicts .beats { border-color: var(--good) } .verdicts .beats-not { border-color: var(--fair) }
  .verdicts .worse { border-color: var(--bad) } .warnings li { border-color: var(--fair) }
  strong.beats { color: var(--good) } strong.beats-not { color: var(--fair) } strong.worse { color: var(--bad) }
"""


def page(facts: TrainingFacts) -> str:
    """The whole page."""
    parts = [f"<p>{html.escape(line)}</p>" for line in summary(facts)]
    if facts.splits:
        parts.append(f'<ul class="verdicts">{"".join(_judged(judgement(split)) for split in facts.splits)}</ul>')
    if warnings := warnings_of(facts):
        items = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
        parts.append(f'<h2>Warnings</h2><ul class="warnings">{items}</ul>')
    parts += (section_html(section, _cell) for section in sections(facts))
    return document(facts.name, "\n".join(parts), style=_STYLE)


def _judged(judged: Judgement) -> str:
    kind = _CLASSES[judged.words]
    before, after = html.escape(judged.before), html.escape(judged.after)
    return f'<li class="{kind}">{before}<strong class="{kind}">{judged.words}</strong>{after}</li>'


def _cell(cell: Cell) -> str:
    if isinstance(cell, Share):
        told = f"{cell.value:.3f} <small>{cell.low:.2f} to {cell.high:.2f}</small>"
        words = f"{cell.value:.3f}, 95 % interval {cell.low:.3f} to {cell.high:.3f}, {cell.n} pairs"
        return f'<span class="share">{told}</span>{interval_bar(cell.value, cell.low, cell.high, words)}'
    if isinstance(cell, Verdict):
        judged = f'<strong class="{_CLASSES[cell.words]}">{cell.words} it</strong>'
        return f'{judged}<br><small class="share">{cell.difference:+.3f}, {html.escape(chance(cell))}</small>'
    return html.escape(cell)
