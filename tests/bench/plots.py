"""Plots of the results as small SVG files, whose text is text, with a light and a dark look of their own."""

import math
from collections.abc import Iterator
from html import escape
from pathlib import Path
from statistics import median

from results import Bars, Curve, Outcome, Plot, Results, ratios, short

PLOTS = Path(__file__).with_name("plots")
OURS = "RestPipe"

WIDTH = 720
_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>{title}</title>
<style>
  text {{ font: 13px system-ui, sans-serif; fill: #1f2328; }}
  .title {{ font-weight: 600; }} .faint {{ fill: #59636e; }}
  .ground {{ fill: #ffffff; stroke: #d1d9e0; }} .grid {{ stroke: #d1d9e0; }} .range {{ stroke: #59636e; }}
  .other {{ fill: #afb8c1; }} .ours {{ fill: #0969da; }} .line {{ fill: none; stroke: #0969da; stroke-width: 2; }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #f0f6fc; }} .faint {{ fill: #9198a1; }}
    .ground {{ fill: #0d1117; stroke: #3d444d; }} .grid {{ stroke: #3d444d; }} .range {{ stroke: #9198a1; }}
    .other {{ fill: #57606a; }} .ours {{ fill: #4493f8; }} .line {{ stroke: #4493f8; }}
  }}
</style>
<rect class="ground" x="0.5" y="0.5" width="{inner_width}" height="{inner_height}" rx="6"/>
<text class="title" x="16" y="26">{title}</text>
"""


def files(outcome: Outcome) -> Iterator[tuple[str, Plot]]:
    """Yield the plots of an outcome that there is something to draw of, with their file names."""
    for number, plot in enumerate(outcome.plots):
        drawable = {name for name, metrics in outcome.samples.items() if metrics.get(plot.metric)}
        if drawable and (isinstance(plot, Curve) or plot.to in drawable):
            yield f"{outcome.name}{f'-{number + 1}' if number else ''}.svg", plot


def title(outcome: Outcome, plot: Plot) -> str:
    """Say what a plot shows."""
    of = f", relative to {plot.to}" if isinstance(plot, Bars) else ""
    return f"{outcome.title}: {plot.metric}{of}"


def draw(results: Results, directory: Path = PLOTS) -> None:
    """Write all plots, and remove those that are no more."""
    drawn = {file: svg(outcome, plot) for outcome in results.outcomes for file, plot in files(outcome)}
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*.svg"):
        if old.name not in drawn:
            old.unlink()
    for file, text in drawn.items():
        (directory / file).write_text(text)


def svg(outcome: Outcome, plot: Plot) -> str:
    """Draw one plot."""
    samples = {name: metrics[plot.metric] for name, metrics in outcome.samples.items() if metrics.get(plot.metric)}
    height, shapes = _bars(samples, plot) if isinstance(plot, Bars) else _curve(samples, plot)
    size = {"width": WIDTH, "height": height, "inner_width": WIDTH - 1, "inner_height": height - 1}
    return _HEAD.format(title=escape(title(outcome, plot)), **size) + "\n".join(shapes) + "\n</svg>\n"


def _bars(samples: dict[str, list[float]], plot: Bars) -> tuple[int, list[str]]:
    left, right, top, step = 226, 150, 44, 28
    reference = samples[plot.to]
    relative = {name: ratios(values, reference) for name, values in samples.items()}
    scale = (WIDTH - left - right) / max(max(values) for values in relative.values())
    bottom, one = top + len(relative) * step, f"{left + scale:.1f}"
    shapes = [f'<line class="grid" x1="{one}" x2="{one}" y1="{top - 6}" y2="{bottom}"/>']
    for row, (name, values) in enumerate(relative.items()):
        y, middle = top + row * step, median(values)
        low, high, end = (left + value * scale for value in (min(values), max(values), middle))
        absolute = short(median(samples[name]))
        shapes += [
            f'<text x="{left - 10}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{"ours" if name.startswith(OURS) else "other"}" x="{left}" y="{y}" '
            f'width="{end - left:.1f}" height="20"/>',
            f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{y + 10}" y2="{y + 10}"/>',
            f'<text x="{WIDTH - 90}" y="{y + 15}" text-anchor="end">{middle:.2f}</text>',
            f'<text class="faint" x="{WIDTH - 16}" y="{y + 15}" text-anchor="end">{absolute}</text>',
        ]
    return bottom + 12, shapes


def _curve(samples: dict[str, list[float]], plot: Curve) -> tuple[int, list[str]]:
    left, right, top, bottom, height = 70, 30, 50, 250, 300
    points = sorted((float(name.replace(",", "")), values) for name, values in samples.items())
    step = _round_step(max(max(values) for _, values in points) / 4)
    highest = 4 * step
    first, last = (math.log2(points[end][0]) for end in (0, -1))

    def x(number: float) -> float:
        return left + (WIDTH - left - right) * (math.log2(number) - first) / (last - first or 1)

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / highest

    shapes = []
    for value in (part * step for part in range(5)):
        shapes += [
            f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>',
            f'<text class="faint" x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{short(value)}</text>',
        ]
    line = " ".join(f"{x(number):.1f},{y(median(values)):.1f}" for number, values in points)
    shapes.append(f'<polyline class="line" points="{line}"/>')
    for number, values in points:
        at = f"{x(number):.1f}"
        shapes += [
            f'<line class="range" x1="{at}" x2="{at}" y1="{y(min(values)):.1f}" y2="{y(max(values)):.1f}"/>',
            f'<circle class="ours" cx="{at}" cy="{y(median(values)):.1f}" r="4"/>',
            f'<text class="faint" x="{at}" y="{bottom + 18}" text-anchor="middle">{number:,.0f}</text>',
        ]
    shapes.append(
        f'<text x="{(left + WIDTH - right) / 2}" y="{height - 12}" text-anchor="middle">{plot.subjects}</text>'
    )
    return height, shapes


def _round_step(least: float) -> float:
    """Return the next number that is easy to read: 1, 2, 2.5 or 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least)
