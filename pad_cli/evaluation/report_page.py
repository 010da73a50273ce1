"""An evaluation's report as one HTML page that opens from disk: tables, charts, and answers beside each other."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator

from pad_cli.evaluation.coloured_tokens import STYLE, coloured, full_colour, key
from pad_cli.evaluation.report_cells import Cell, Estimate, Heat, Number, Rate, figure
from pad_cli.evaluation.report_content import (
    Facts,
    Row,
    by_preference,
    comparisons,
    directed,
    sections,
    summary,
    warnings,
)
from pad_cli.evaluation.report_table import MARKS, method_name, reference_name
from pad_cli.reports.charts import interval_bar
from pad_cli.reports.content import Grid
from pad_cli.reports.html import document, grid_html, section_html

_STYLE = """
  body { max-width: 80rem } td small { color: var(--faint); white-space: nowrap }
  .better { color: var(--good) } .worse { color: var(--bad) } .failed { color: var(--bad); font-weight: 600 }
  .warnings { list-style: none; padding: 0 }
  .warnings li { border-left: 5px solid var(--fair); padding: .3rem .8rem; margin: .5rem 0 }
  summary { cursor: pointer; margin: .6rem 0; font-weight: 600 }
  :focus-visible { outline: 2px solid var(--c0); outline-offset: 2px }
  .bar { overflow: visible }
  .heat { display: block; padding: .1rem .5rem; border-radius: 3px } .heat small { color: inherit }
  .filters { display: flex; flex-wrap: wrap; gap: .6rem 1.4rem; align-items: end; margin: 1rem 0 }
  .filters label { display: grid; font-size: .82rem; color: var(--faint) }
  select { font: inherit; color: var(--ink); background: var(--paper); border: 1px solid var(--faint);
           border-radius: 4px; padding: .25rem .4rem }
  article { border-top: 1px solid var(--line); padding: .8rem 0 } article[hidden], .filters[hidden] { display: none }
  article h3 { font-size: 1rem; margin: 0; white-space: pre-wrap; overflow-wrap: anywhere }
  article .where { margin: .1rem 0 .5rem; color: var(--faint); font-size: .82rem }
  .answers { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); gap: .8rem }
  .answer { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .8rem; min-width: 0 }
  .answer h4 { margin: 0; font-size: .85rem } .answer p { white-space: pre-wrap; margin: .3rem 0; font-size: .92rem }
  .answer ul { list-style: none; padding: 0; margin: 0; font-size: .8rem; color: var(--faint) }
  .answer li { display: inline-block; margin-right: .8rem }
  pre { overflow-x: auto; font-size: .8rem }
"""

_SCRIPT = """
const names = ['policy', 'group', 'preference'];
const choices = names.map(name => document.getElementById('by-' + name));
const articles = [...document.querySelectorAll('article')];
const count = document.getElementById('shown');
const show = () => {
  let shown = 0;
  for (const article of articles) {
    article.hidden = choices.some((choice, i) => choice.value && choice.value !== article.dataset[names[i]]);
    shown += !article.hidden;
  }
  count.textContent = shown + ' of ' + articles.length + ' items shown';
};
for (const choice of choices) choice.addEventListener('change', show);
document.getElementById('filters').hidden = false;
show();
"""


def evaluation_page(facts: Facts) -> str:
    """The whole page."""
    parts = [f"<p>{html.escape(line)}</p>" for line in summary(facts)]
    if items := "".join(f"<li>{html.escape(line)}</li>" for line in warnings(facts)):
        parts.append(f'<ul class="warnings">{items}</ul>')
    parts += (section_html(section, _cell) for section in sections(facts))
    if facts.report["comparisons"]:
        parts.append(f"<h2>Against {html.escape(reference_name(facts.report))}</h2>")
        parts += (_folded(grid.title, [grid]) for grid in comparisons(facts))
    parts.append("<h2>By preference</h2><p>The deeper the colour, the higher the mean.</p>")
    for number, scorer in enumerate(facts.scorers):
        parts.append(_folded(directed(facts, scorer), by_preference(facts, scorer), unfolded=number == 0))
    parts += (*_outputs(facts), _origin(facts))
    return document(
        "Evaluation", "\n".join(parts), style=_STYLE + STYLE, script=_SCRIPT if facts.outputs["items"] else ""
    )


def _folded(title: str, grids: Iterable[Grid[Cell]], *, unfolded: bool = False) -> str:
    content = "".join(grid_html(grid, _cell) for grid in grids)
    return f"<details{' open' * unfolded}><summary>{html.escape(title)}</summary>{content}</details>"


def _cell(cell: Cell) -> str:
    match cell:
        case Estimate():
            return _estimate(cell)
        case Number(value, text):
            return "" if value is None else f'<data value="{value}">{html.escape(text)}</data>'
        case Heat(estimate, share):
            shade = f"background: rgba(60, 120, 220, {0.5 * share:.2f})"
            return f'<span class="heat" style="{shade}">{_estimate(estimate)}</span>'
        case Rate(estimate):
            return _estimate(estimate) + _bar(estimate)
        case _:
            return html.escape(cell)


def _estimate(estimate: Estimate) -> str:
    if estimate.value is None:
        return f'<span class="failed">{estimate.failed or ""} failed</span>'
    parts = [f'<data value="{estimate.value}">{estimate.text}</data>']
    if mark := MARKS[estimate.verdict]:
        told = f"{estimate.verdict} than the reference"
        parts.append(f'<span class="{estimate.verdict}" role="img" aria-label="{told}" title="{told}">{mark}</span>')
    if estimate.interval:
        parts.append(f"<small>{estimate.interval}</small>")
    return " ".join(parts)


def _bar(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return ""
    told = f"win rate {estimate.text}, interval {estimate.interval}"
    return interval_bar(estimate.value, estimate.low, estimate.high, told)


def _outputs(facts: Facts) -> Iterator[str]:
    items = facts.outputs["items"]
    if not items:
        return
    yield (
        f"<h2>Answers beside each other</h2><p>{facts.outputs['shown']:,} of {facts.outputs['answers']:,} answers, "
        "taken in turn from every preference, group and policy; all of them are in answers.jsonl.</p>"
    )
    choices = "".join(_choice(name, items) for name in ("policy", "group", "preference"))
    yield f'<form id="filters" class="filters" hidden>{choices}<span id="shown" role="status"></span></form>'
    full = full_colour(answer.get("tokens") or () for item in items for answer in item["answers"])
    if full:
        yield key(full)
    yield from (_item(item, full) for item in items)


def _choice(name: str, items: Iterable[Row]) -> str:
    values = dict.fromkeys(item[name] for item in items)
    options = "".join(f'<option value="{html.escape(value)}">{html.escape(value)}</option>' for value in values)
    return f'<label>{name}<select id="by-{name}"><option value="">all</option>{options}</select></label>'


def _item(item: Row, full: float) -> str:
    names = ("policy", "group", "preference")
    places = " ".join(f'data-{name}="{html.escape(item[name])}"' for name in names)
    where = " · ".join(html.escape(item[name]) for name in names)
    answers = "".join(
        f'<section class="answer"><h4>{html.escape(method_name(answer["method"], answer["guidance_weight"]))}</h4>'
        f"<p>{_text(answer, full)}</p><ul>{_scores(answer['scores'])}</ul></section>"
        for answer in item["answers"]
    )
    heading = f'<h3>{html.escape(item["prompt"])}</h3><p class="where">{where}</p>'
    return f'<article {places}>{heading}<div class="answers">{answers}</div></article>'


def _text(answer: Row, full: float) -> str:
    tokens = answer.get("tokens")
    return html.escape(answer["text"]) if tokens is None else coloured(tokens, full)


def _scores(scores: Row) -> str:
    return "".join(
        f"<li>{html.escape(name)} {'failed' if value is None else figure(value)}</li>" for name, value in scores.items()
    )


def _origin(facts: Facts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts.report["environment"].items())
    recipe = html.escape(json.dumps(facts.report["recipe"], indent=2, ensure_ascii=False))
    return (
        f"<h2>How it was made</h2><p>{html.escape(versions)}</p>"
        f"<details><summary>Recipe</summary><pre>{recipe}</pre></details>"
    )
