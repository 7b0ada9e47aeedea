"""Line plots as SVG: both axes logarithmic, one line per server, its name at its end."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 50, 50
COLOURS = ("#0b6e4f", "#d1495b", "#30638e", "#edae49", "#6a4c93", "#5c5c5c", "#00a6a6", "#9c6644")

Points = Sequence[tuple[float, float]]


class _Axis:
    """A logarithmic scale from data to pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> Iterator[tuple[float, str]]:
        for exponent in range(self._low, self._high + 1):
            yield self.at(10**exponent), f"{10**exponent:,g}"


def line_plot(title: str, x_label: str, y_label: str, series: Mapping[str, Points]) -> str:
    """The plot as a document. Values must be above zero."""
    points = [point for line in series.values() for point in line]
    x = _Axis([point[0] for point in points], LEFT, WIDTH - RIGHT)
    y = _Axis([point[1] for point in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 24, title, size=15),
        _text(LEFT, HEIGHT - 12, x_label),
        _text(LEFT, TOP - 10, y_label),
        *(_grid(at, TOP, at, HEIGHT - BOTTOM) + _text(at, HEIGHT - 32, name, "middle") for at, name in x.ticks()),
        *(_grid(LEFT, at, WIDTH - RIGHT, at) + _text(LEFT - 6, at + 4, name, "end") for at, name in y.ticks()),
    ]
    heights = _labels({name: y.at(line[-1][1]) for name, line in series.items()})
    for (name, line), colour in zip(series.items(), COLOURS * 3, strict=False):
        path = " ".join(f"{x.at(px):.1f},{y.at(py):.1f}" for px, py in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x.at(px):.1f}" cy="{y.at(py):.1f}" r="3" fill="{colour}"/>' for px, py in line]
        parts.append(_text(x.at(line[-1][0]) + 8, heights[name] + 4, name, colour=colour))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _labels(wanted: Mapping[str, float]) -> dict[str, float]:
    """Moves names that would lie on each other apart."""
    placed: dict[str, float] = {}
    last = -math.inf
    for name, height in sorted(wanted.items(), key=lambda item: item[1]):
        last = placed[name] = max(height, last + 14)
    return placed


def _grid(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", *, size: int = 12, colour: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
    )
