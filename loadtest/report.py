"""The report's own part: what was lost, and what the figures are worth, above Locust's tables."""

from html import escape
from pathlib import Path

from loadtest.figures import Figures
from loadtest.plan import Plan

_STYLE = (
    "font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 1rem 2rem; "
    "color: #222; background: #fff; border: 2px solid "
)
_CELL = "padding: 0 2rem 0 0; text-align: left"

ROWS = (
    ("Clients", "clients"),
    ("... that said at the end what they have", "settled"),
    ("... that were not there at the end", "absent"),
    ("... in rooms with history", "with_history"),
    ("Publications that the rate asked for", "planned"),
    ("... accepted", "accepted"),
    ("... refused", "refused"),
    ("... of unknown outcome", "unknown"),
    ("Deliveries", "delivered"),
    ("... after a reconnect, from history", "caught_up"),
    ("Lost", "lost"),
    ("Delivered twice", "repeated"),
    ("Out of order", "disordered"),
    ("Left out for slow clients, and said so", "skipped"),
    ("Connections that storms cut", "cut"),
    ("Came back and recovered", "recovered"),
    ("Told that something may be missing", "told"),
)


def verdict(figures: Figures) -> str:
    """One line."""
    wrong = figures.wrong()
    if wrong:
        return f"FAILED: {'; '.join(wrong)}"
    said = [
        (figures.told, "times a client was told that something may be missing"),
        (figures.skipped, "publications were left out for slow clients, and said so"),
    ]
    well = f"Nothing was lost, repeated or out of order: {figures.delivered} deliveries to {figures.clients} clients"
    return well + "".join(f"; but {count} {what}" for count, what in said if count)


def text(figures: Figures) -> str:
    """For a terminal."""
    lines = [f"{label + ' ':.<44} {getattr(figures, name)}" for label, name in ROWS]
    lines += [f"{label}: {_counts(counter)}" for label, counter in _counters(figures) if counter]
    lines += [f"Note: {doubt}." for doubt in figures.doubts()]
    return "\n".join([*lines, f"{verdict(figures)}."])


def section(plan: Plan, figures: Figures) -> str:
    """For the page."""
    settings = (
        f"{', '.join(plan.scenarios)}: {plan.users} clients in {plan.processes} processes, {plan.duration:g} s, "
        f"rooms of namespace {plan.namespace}"
    )
    rows = [(label, str(getattr(figures, name))) for label, name in ROWS]
    rows += [(label, _counts(counter)) for label, counter in _counters(figures) if counter]
    table = "".join(f'<tr><th style="{_CELL}">{escape(a)}</th><td>{escape(b)}</td></tr>' for a, b in rows)
    notes = "".join(f"<p>Note: {escape(doubt)}.</p>" for doubt in figures.doubts())
    colour = "#c62828" if figures.wrong() else "#2e7d32"
    return (
        f'<section id="carillon" style="{_STYLE}{colour}"><h1>{escape(verdict(figures))}</h1><p>{escape(settings)}</p>'
        f"<table>{table}</table>{notes}</section>"
    )


def insert(page: Path, section: str) -> None:
    """Puts the section above Locust's own report."""
    html = page.read_text("utf-8")
    head, body, rest = html.rpartition("<body>")
    if not body:
        raise ValueError(f"{page} has no <body>: not a report of Locust")
    page.write_text(f"{head}{body}{section}{rest}", "utf-8")


def _counters(figures: Figures) -> list[tuple[str, dict[str, int]]]:
    return [
        ("Connections that ended, by code", figures.closes),
        ("Attempts to connect that failed", figures.attempts),
    ]


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in sorted(counter.items()))
