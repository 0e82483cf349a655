"""Draw bar charts as SVG without a library: horizontal bars, each with its figure beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 840
_LEFT = 310  # where bars begin
_RIGHT = 130  # space for the figure after the longest bar
_TOP = 62
_ROW = 30
_BAR = 18

_STYLE = """
  .page { fill: #ffffff }
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: 600 }
  .quiet { fill: #656d76 }
  .axis { stroke: #d0d7de }
  .range { stroke: #24292f; stroke-width: 1.5 }
  .kind-0 { fill: #0969da }
  .kind-1 { fill: #8c959f }
  .kind-2 { fill: #d4a72c }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 }
    text { fill: #e6edf3 }
    .quiet { fill: #8d96a0 }
    .axis { stroke: #30363d }
    .range { stroke: #e6edf3 }
    .kind-0 { fill: #4493f8 }
    .kind-1 { fill: #6e7681 }
    .kind-2 { fill: #bb8009 }
  }
"""


@dataclass(frozen=True)
class Bar:
    """A bar, its figure as text, and the range of its rounds if it is to be shown."""

    label: str
    value: float
    figure: str
    kind: int = 0
    least: float | None = None
    most: float | None = None


def bar_chart(title: str, subtitle: str, bars: Sequence[Bar], kinds: Sequence[str] = ()) -> str:
    """Draw the bars from top to bottom. `kinds` is the legend."""
    height = _TOP + len(bars) * _ROW + 14
    longest = max(max(bar.value, bar.most or 0) for bar in bars)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    rows = [_row(bar, _TOP + number * _ROW, scale) for number, bar in enumerate(bars)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
            f'<text class="title" x="20" y="28">{escape(title)}</text>',
            f'<text class="quiet" x="20" y="47">{escape(subtitle)}</text>',
            *_legend(kinds),
            *rows,
            f'<line class="axis" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{height - 10}"/>',
            "</svg>\n",
        ]
    )


def _row(bar: Bar, y: float, scale: float) -> str:
    middle = y + _ROW / 2
    length = bar.value * scale
    end = max(length, (bar.most or 0) * scale)
    parts = [
        f'<text x="{_LEFT - 10}" y="{middle + 4.5:g}" text-anchor="end">{escape(bar.label)}</text>',
        _rectangle(bar.kind, middle - _BAR / 2, length),
        f'<text x="{_LEFT + end + 8:.1f}" y="{middle + 4.5:g}">{escape(bar.figure)}</text>',
    ]
    if bar.least is not None and bar.most is not None:
        parts.insert(2, _whisker(bar.least * scale, bar.most * scale, middle))
    return "\n".join(parts)


def _rectangle(kind: int, y: float, length: float) -> str:
    return (
        f'<rect class="kind-{kind}" x="{_LEFT}" y="{y:g}" width="{length:.1f}" '
        f'height="{_BAR}" rx="2"/>'
    )


def _whisker(least: float, most: float, middle: float) -> str:
    low, high = _LEFT + least, _LEFT + most
    return (
        f'<path class="range" d="M{low:.1f} {middle - 4:g}v8 M{low:.1f} {middle:g}'
        f'H{high:.1f} M{high:.1f} {middle - 4:g}v8"/>'
    )


def _legend(kinds: Sequence[str]) -> list[str]:
    parts = []
    x = _WIDTH - 20 - sum(_legend_width(kind) for kind in kinds)
    for number, kind in enumerate(kinds):
        parts.append(f'<rect class="kind-{number}" x="{x}" y="17" width="12" height="12" rx="2"/>')
        parts.append(f'<text x="{x + 18}" y="28">{escape(kind)}</text>')
        x += _legend_width(kind)
    return parts


def _legend_width(kind: str) -> int:
    return 40 + 7 * len(kind)
