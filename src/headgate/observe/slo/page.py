"""The report as one page of HTML that needs nothing else: style and charts are in it.

Every text comes from the operator's file or from figures and is escaped; the page has no script, so
that it can be mailed, and a policy of its own that forbids any. It follows the reader's choice of
light or dark, and prints in light with each SLO whole on a sheet.
"""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Final
from zoneinfo import ZoneInfo

from headgate.observe.slo.drawing import WIDE, Line, bars, lines
from headgate.observe.slo.report import QUANTILES, ObjectiveReport, Report, SloReport
from headgate.observe.slo.rules import share
from headgate.units import rough_duration

__all__ = ["to_html"]

_STYLE: Final = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#5b6675;--line:#e1e5ea;--good:#1a7f4e;
--warn:#a86400;--bad:#c02b2b;--none:#b3bac4;--a:#2563c9;--b:#8a4fd0;--c:#c2591b;--shade:#00000012}
@media (prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1a2028;--ink:#e6eaf0;--soft:#9aa6b4;
--line:#2c3540;--good:#4cc38a;--warn:#e2a03f;--bad:#f07171;--none:#4a5562;--a:#6ea8fe;--b:#bf95f7;
--c:#f2a06b;--shade:#ffffff14}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:980px;margin:0 auto;padding:32px 20px 48px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px}
h2{font-size:18px;margin:0;overflow-wrap:anywhere}
h3{font-size:14px;margin:18px 0 2px;overflow-wrap:anywhere}
p{margin:0}.soft{color:var(--soft)}.small{font-size:13px}
header{margin-bottom:24px}
section,.sheet{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:18px 20px;margin:0 0 18px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
margin:0 0 18px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.tile b{display:block;font-size:24px;line-height:1.25;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-size:14px}
th{font-weight:600;text-align:left;color:var(--soft);font-size:12.5px;padding:4px 10px 6px 0}
td{border-top:1px solid var(--line);padding:7px 10px 7px 0;vertical-align:middle;
overflow-wrap:anywhere}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.chip{display:inline-block;border-radius:99px;padding:1px 10px;font-size:12.5px;font-weight:600;
border:1px solid currentColor;white-space:nowrap}
.met{color:var(--good)}.missed{color:var(--bad)}.unknown{color:var(--soft)}
.head{display:flex;justify-content:space-between;gap:12px;align-items:baseline}
td.left{white-space:nowrap}.bar{position:relative;height:9px;width:96px;background:var(--line);border-radius:9px;
overflow:hidden;display:inline-block;vertical-align:middle;margin-right:8px}
.bar i{position:absolute;left:0;top:0;bottom:0;border-radius:9px}
.bar .g{background:var(--good)}.bar .w{background:var(--warn)}.bar .r{background:var(--bad)}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:4px 22px}
@media (max-width:720px){.pair{grid-template-columns:1fr}.bar{width:60px}}
figure{margin:10px 0 0}figcaption{font-size:12.5px;color:var(--soft);margin-bottom:2px}
svg{width:100%;height:auto;display:block}svg text{font-size:11px;fill:var(--soft)}
.grid{stroke:var(--line);stroke-width:1}.bound{stroke:var(--bad);stroke-width:1.2;
stroke-dasharray:4 3}svg .boundtext{fill:var(--bad)}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.closed{fill:var(--shade)}
.la{stroke:var(--a)}.lb{stroke:var(--b)}.lc{stroke:var(--c)}
circle.la,.fill.la{fill:var(--a)}circle.lb{fill:var(--b)}circle.lc{fill:var(--c)}
.fill.lr{fill:var(--bad)}.lr{stroke:var(--bad)}circle.lr{fill:var(--bad)}
.fill{stroke:none!important;fill-opacity:.14}
.bg{fill:var(--good)}.br{fill:var(--bad)}.bn{fill:var(--none);opacity:.35}
.key{display:inline-block;width:14px;height:3px;border-radius:2px;margin:0 5px 3px 12px}
.ka{background:var(--a)}.kb{background:var(--b)}.kc{background:var(--c)}
footer{color:var(--soft);font-size:12.5px;margin-top:24px}
@media print{:root{--bg:#fff;--card:#fff;--ink:#111;--soft:#555;--line:#d5d9de;--good:#1a7f4e;
--warn:#a86400;--bad:#c02b2b;--none:#b3bac4;--a:#2563c9;--b:#8a4fd0;--c:#c2591b;--shade:#00000012}
main{padding:0;max-width:none}section,figure,tr{break-inside:avoid}body{font-size:12px}
@page{margin:14mm}}
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def to_html(report: Report, *, title: str = "Service level report") -> str:
    zone = ZoneInfo(report.zone)
    every = [(slo, one) for slo in report.slos for one in slo.objectives]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title)} {escape(_period(report, zone))}</title>",
        f"<style>{_STYLE}</style></head><body><main>",
        f"<header><h1>{escape(title)}</h1>",
        (
            f'<p class="soft">{escape(_period(report, zone))}, {escape(report.zone)}'
            f"{'' if report.is_whole else '; the period is not over yet'}</p></header>"
        ),
    ]
    if not every:
        parts.append('<section><p class="soft">No objectives are in the file.</p></section>')
    else:
        parts += [_tiles(report, every), _summary(every)]
    parts += [_slo(slo, report, zone) for slo in report.slos]
    parts.append(_footer(report, zone))
    parts.append("</main></body></html>")
    return "".join(parts)


def _period(report: Report, zone: ZoneInfo) -> str:
    first = datetime.fromtimestamp(report.start, zone)
    last = datetime.fromtimestamp(report.end - 1, zone)
    if first.date() == last.date():
        return f"{first:%d %B %Y}"
    if (first.year, first.month) == (last.year, last.month):
        return f"{first:%d} to {last:%d %B %Y}"
    return f"{first:%d %B %Y} to {last:%d %B %Y}"


def _tiles(report: Report, every: list[tuple[SloReport, ObjectiveReport]]) -> str:
    met = sum(one.verdict == "met" for _, one in every)
    missed = sum(one.verdict == "missed" for _, one in every)
    unknown = len(every) - met - missed
    known = min((slo.known_share for slo in report.slos), default=0.0)
    tiles = [
        ("objectives met", f"{met} of {len(every)}", "met" if met == len(every) else ""),
        ("missed", str(missed), "missed" if missed else ""),
        ("figures for", _percent(known) + " of the time", ""),
    ]
    if unknown:
        tiles.insert(2, ("without events", str(unknown), "unknown"))
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><span class="soft small">{escape(said)}</span>'
            f'<b class="{css}">{escape(value)}</b></div>'
            for said, value, css in tiles
        )
        + "</div>"
    )


def _summary(every: list[tuple[SloReport, ObjectiveReport]]) -> str:
    rows = []
    for slo, one in every:
        rows.append(
            f"<tr><td><strong>{escape(slo.slo.name)}</strong>"
            f'<br><span class="soft small">{escape(slo.slo.of)}</span></td>'
            f"<td>{escape(one.objective.said or one.objective.name)}</td>"
            f'<td class="n">{_ratio(one.spent.ratio, one.objective.target)}</td>'
            f'<td class="n">{_count(one.spent.bad)} of {_count(one.spent.total)}</td>'
            f'<td class="left">{_left(one)}</td>'
            f'<td><span class="chip {one.verdict}">{one.verdict}</span></td></tr>'
        )
    return (
        '<section><table><thead><tr><th>SLO</th><th>Objective</th><th class="n">Reached</th>'
        '<th class="n">Bad events</th><th>Budget left</th><th></th></tr></thead><tbody>'
        + "".join(rows)
        + "</tbody></table></section>"
    )


def _left(one: ObjectiveReport) -> str:
    left = one.spent.left
    if left is None:
        return '<span class="soft">no events</span>'
    css = "r" if left < 0 else "w" if left < 0.25 else "g"
    wide = 100.0 if left < 0 else max(2.0, min(100.0, left * 100))
    said = f"{_percent(left)}" if left >= 0 else f"{_percent(-left)} over"
    return f'<span class="bar"><i class="{css}" style="width:{wide:.0f}%"></i></span>{said}'


def _slo(each: SloReport, report: Report, zone: ZoneInfo) -> str:
    about = [each.slo.of] if each.slo.of else []
    known = f"figures for {_percent(each.known_share)} of the time"
    about.append(known)
    if each.excluded:
        cut = sum(high - low for low, high in each.excluded)
        about.append(f"{rough_duration(cut)} of maintenance left out")
    parts = [
        (
            f'<section><div class="head"><h2>{escape(each.slo.name)}</h2>'
            f'<span class="soft small">{escape("; ".join(about))}</span></div>'
        )
    ]
    if each.slo.description:
        parts.append(f'<p class="soft">{escape(each.slo.description)}</p>')
    for one in each.objectives:
        parts.append(_objective(each, one, report, zone))
    if each.quantiles_by_day:
        parts.append(_durations(each, report, zone))
    parts.append("</section>")
    return "".join(parts)


def _objective(each: SloReport, one: ObjectiveReport, report: Report, zone: ZoneInfo) -> str:
    said = escape(one.objective.said or one.objective.name)
    estimate = "" if one.objective.is_exact else " (estimated between two buckets)"
    head = (
        f'<div class="head"><h3>{said}<span class="soft">{estimate}</span></h3>'
        f'<span><span class="soft small">reached {_ratio(one.spent.ratio, one.objective.target)}'
        f'</span> <span class="chip {one.verdict}">{one.verdict}</span></span></div>'
    )
    if one.spent.total <= 0:
        return f'{head}<p class="soft small">There were no events to judge by.</p>'
    return (
        f'{head}<div class="pair"><figure><figcaption>Error budget left</figcaption>'
        f"{_burn_down(each, one, report, zone)}</figure>"
        f"<figure><figcaption>Good events by day</figcaption>{_by_day(one)}</figure></div>"
    )


def _burn_down(each: SloReport, one: ObjectiveReport, report: Report, zone: ZoneInfo) -> str:
    lowest = min((left for _, left in one.left), default=0.0)
    low = 0.0 if lowest >= 0 else max(-10.0, lowest * 1.08)
    marks = [(1.0, "100%"), (0.5, "50%"), (0.0, "0")] if low > -1.5 else [(1.0, "100%"), (0.0, "0")]
    if low < 0:
        marks.append((low / 1.08, _percent(low / 1.08)))
        marks = [mark for mark in marks if mark[0] <= 0 or low > -3 or mark[0] == 1.0]
    css = "lr" if one.verdict == "missed" else "la"
    return lines(
        f"Error budget left of {each.slo.name}, {one.objective.name}",
        [Line("left", css, one.left)],
        report.start,
        report.end,
        low=low,
        high=1.0,
        marks=marks,
        days=_ticks(report, zone),
        shaded=each.excluded,
        is_filled=True,
    )


def _by_day(one: ObjectiveReport) -> str:
    target = one.objective.target
    ratios = [day.spent.ratio for day in one.days if day.spent.ratio is not None]
    room = max(1.0 - min((*ratios, target)), 1.0 - target) * 1.25
    low = max(0.0, 1.0 - room)
    values: list[tuple[str, float | None, str, str]] = []
    for day in one.days:
        ratio = day.spent.ratio
        name = str(day.day.day)
        if ratio is None:
            values.append((name, None, "bn", f"{day.day}: no events"))
            continue
        css = "bg" if ratio >= target else "br"
        tip = f"{day.day}: {share(ratio)}, {_count(day.spent.bad)} bad of {_count(day.spent.total)}"
        if day.known_share < 0.995:
            tip += f"; figures for {_percent(day.known_share)} of the day"
        values.append((name, ratio, css, tip))
    marks = [(target, share(target)), (1.0, "100%")]
    if target - low > 0.4 * (1.0 - low):
        marks.append((low, _short(low)))
    return bars(
        f"Good events by day, {one.objective.name}",
        values,
        low=low,
        high=1.0,
        marks=marks,
        bound=(target, share(target)),
        every=max(1, len(values) // 15 + (len(values) % 15 > 0)),
    )


def _durations(each: SloReport, report: Report, zone: ZoneInfo) -> str:
    drawn = []
    top = 0.0
    for name, css in zip(QUANTILES, ("la", "lb", "lc"), strict=True):
        values = each.quantiles_by_day[name]
        days = each.objectives[0].days
        points = [
            ((day.start + day.end) / 2, value) for day, value in zip(days, values, strict=True)
        ]
        top = max(top, *(value or 0.0 for value in values))
        drawn.append(Line(name, css, points))
    bounds = [one.objective for one in each.objectives if one.objective.bound_s is not None]
    near = [one.bound_s for one in bounds if one.bound_s and one.bound_s <= 3 * top]
    high = max((top, *near), default=1.0) * 1.12 or 1.0
    step = _nice(high)
    marks = [(step * place, _seconds(step * place)) for place in range(int(high / step) + 1)]
    bound = None
    if near:
        worst = next(one for one in reversed(bounds) if one.bound_s in near)
        bound = (worst.bound_s or 0.0, f"{worst.name}: {_seconds(worst.bound_s or 0.0)}")
    keys = "".join(
        f'<span class="key k{letter}"></span>{name} {_seconds(each.quantiles.get(name))}'
        for name, letter in zip(QUANTILES, "abc", strict=True)
    )
    chart = lines(
        f"Durations by day of {each.slo.name}",
        drawn,
        report.start,
        report.end,
        low=0.0,
        high=high,
        marks=marks,
        days=_ticks(report, zone),
        bound=bound,
        shaded=each.excluded,
        width=WIDE,
    )
    caption = f"<figcaption>Durations by day, and over the period:{keys}</figcaption>"
    return f"<figure>{caption}{chart}</figure>"


def _ticks(report: Report, zone: ZoneInfo) -> list[tuple[float, str]]:
    from headgate.observe.slo.periods import days_of

    days = days_of(report.start, report.end, report.zone)
    if len(days) <= 2:
        step = (report.end - report.start) / 4
        return [
            (at, f"{datetime.fromtimestamp(at, zone):%H:%M}")
            for at in (report.start + step * place for place in range(1, 4))
        ]
    every = max(1, len(days) // 7)
    form = "%d %b"
    return [(start, day.strftime(form)) for day, start, _ in days[::every]][1:]


def _footer(report: Report, zone: ZoneInfo) -> str:
    made = datetime.fromtimestamp(report.made_at, zone)
    return (
        "<footer><p>A budget is the share of events that may be bad, of all events of the period. "
        "Times of maintenance are in no figure. Times without figures, as when the gateway was "
        "down, are neither good nor bad. Durations are estimated within the buckets in which they "
        f"were counted.</p><p>Made by Headgate on {made:%Y-%m-%d %H:%M} {escape(report.zone)}."
        "</p></footer>"
    )


def _ratio(value: float | None, target: float) -> str:
    if value is None:
        return "-"
    # As many digits as the target needs, and two more: 99.95% is not 100%.
    digits = len(share(target).partition(".")[2].rstrip("%")) + 2
    said = f"{value * 100:.{digits}f}"
    if value < 1 and float(said) >= 100:
        said = f"{100 - 10**-digits:.{digits}f}"
    return f"{said}%"


def _percent(value: float) -> str:
    shown = value * 100
    if 99 < shown < 100:
        return f"{min(shown, 99.99):.2f}%"
    return f"{shown:.0f}%" if abs(shown) >= 10 or shown == 0 else f"{shown:.1f}%"


def _short(value: float) -> str:
    return f"{value * 100:.4g}%"


def _count(value: float) -> str:
    if value < 10 and value != int(value):
        return f"{value:.1f}"
    return f"{value:,.0f}".replace(",", "\u202f")


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def _nice(high: float) -> float:
    """A round step that cuts this into three to six."""
    size = 1e-6
    while True:
        for step in (1, 2, 5):
            if high / (step * size) <= 5:
                return step * size
        size *= 10
