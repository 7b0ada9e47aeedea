"""The plot of a run as SVG: for each fault a panel with the deliveries over time; the fault's own time is shaded."""

from collections.abc import Sequence
from html import escape

from tests.chaos.run import Result

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 760, 70, 60, 20, 20, 34
LINE, SHADE, FAINT, INK = "#0b6e4f", "#f3d9dc", "#ddd", "#222"


def timeline(results: Sequence[Result]) -> str:
    """One document; each panel has its own scales: after an outage, what was missed comes at once."""
    height = TOP + len(results) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, result in enumerate(results):
        parts += _panel(result, TOP + number * (PANEL + GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(result: Result, top: float) -> list[str]:
    bottom = top + PANEL
    most = max((rate for _, rate in result.timeline), default=1.0)
    start, end = (result.timeline[0][0], result.timeline[-1][0]) if result.timeline else (0.0, 1.0)
    per_second = (WIDTH - LEFT - RIGHT) / max(end - start, 1.0)

    def x(seconds: float) -> float:
        return LEFT + (seconds - start) * per_second

    points = " ".join(f"{x(at):.1f},{bottom - PANEL * rate / most:.1f}" for at, rate in result.timeline)
    ends = x(min(result.took, end))
    return [
        f'<rect x="{x(0):.1f}" y="{top}" width="{max(ends - x(0), 1):.1f}" height="{PANEL}" fill="{SHADE}"/>',
        f'<path d="M{LEFT},{top}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="{FAINT}"/>',
        f'<polyline points="{points}" fill="none" stroke="{LINE}" stroke-width="1.5"/>',
        _text(LEFT, top - 5, result.fault.name),
        _text(LEFT - 6, top + 8, f"{most:,.0f}/s", "end"),
        _text(x(0), bottom + 12, "0", "middle"),
        _text(WIDTH - RIGHT, bottom + 12, f"{end:.0f} s", "end"),
    ]


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{escape(text)}</text>'
