"""Dashboards as Grafana reads them: their panels, and the queries with the variables filled in."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "monitoring" / "dashboards"

#: What Grafana puts in where everything is chosen ("All": the variables' allValue).
EVERYTHING: Mapping[str, str] = {"namespace": ".*", "job": ".*", "pod": ".*", "__rate_interval": "1m"}


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    panel: str
    expression: str
    legend: str

    def filled_in(self, values: Mapping[str, str] = EVERYTHING) -> str:
        """With the variables' values. Raises KeyError for a variable that is not in `values`."""
        return re.sub(
            r"\$(\w+)", lambda found: values[found[1]] if not found[1].isdigit() else found[0], self.expression
        )


def load(name: str) -> dict[str, Any]:
    """`load("fleet")`"""
    board: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return board


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something: all but the rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: dict[str, Any]) -> Iterator[Query]:
    for panel in panels(board):
        for target in panel["targets"]:
            yield Query(panel["title"], target["expr"], target["legendFormat"])
