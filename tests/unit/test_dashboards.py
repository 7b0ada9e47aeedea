"""The dashboards show what is exported, and Grafana can read them."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.dashboard import FOLDER, Query, load, panels, queries
from tests.support.exported import EXPORTED, OF_THE_TARGET
from tests.support.promql import grouped_by, selectors

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
RULES = FOLDER.parent / "rules" / "carillon.yaml"
QUERIES = [(name, query) for name in NAMES for query in queries(load(name))]
IDS = [f"{name}-{query.panel}" for name, query in QUERIES]


@pytest.fixture(params=NAMES)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


def test_the_fleet_has_a_stable_address() -> None:
    assert load("fleet")["uid"] == "carillon-fleet"
    assert load("fleet")["id"] is None


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=IDS)
def test_a_query_reads_what_is_exported(query: Query) -> None:
    read = selectors(query.filled_in())
    assert read
    for selector in read:
        assert selector.labels <= EXPORTED[selector.name] | OF_THE_TARGET, selector.name
    every_label = OF_THE_TARGET.union(*(EXPORTED[selector.name] for selector in read))
    assert grouped_by(query.filled_in()) <= every_label
    assert set(re.findall(r"{{(\w+)}}", query.legend)) <= grouped_by(query.filled_in()), "the legend names a label"


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=IDS)
def test_a_query_keeps_to_what_was_chosen(query: Query) -> None:
    """Else a panel would mix deployments that share a Prometheus."""
    for selector in selectors(query.filled_in()):
        assert "namespace" in selector.labels, selector.name
        assert selector.name == "ALERTS" or "job" in selector.labels, selector.name
        assert not selector.name.startswith("carillon_") or "instance" in selector.labels, selector.name


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=IDS)
def test_counters_are_shown_as_rates(query: Query) -> None:
    text = query.filled_in()
    for selector in selectors(text):
        if selector.name.endswith(("_total", "_bucket", "_count", "_accepted", "_handled")):
            assert re.search(rf"(rate|increase)\({selector.name}\b", text)


def test_variables_are_defined_and_start_with_everything(board: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$(?!__)([a-z]\w*)", " ".join(query.expression for query in queries(board))))
    assert used == variables.keys() - {"datasource"}
    assert next(iter(variables)) == "datasource"
    for name in used:
        assert variables[name]["allValue"] == ".*", "matches what has no such label, too"
        assert variables[name]["current"]["value"] == ["$__all"]
        expression = re.fullmatch(r"label_values\((.+), (\w+)\)", variables[name]["query"]["query"])
        assert expression
        [selector] = selectors(Query("", expression[1], "").filled_in())
        assert selector.name == "carillon_ready"
        assert expression[2] in OF_THE_TARGET


def test_nothing_is_bound_to_one_grafana(board: dict[str, Any]) -> None:
    sources = [source for source in _datasources(board) if source["type"] == "prometheus"]
    assert len(sources) > 2 * len(panels(board)), "of panels, queries, variables and annotations"
    assert all(source["uid"] == "${datasource}" for source in sources)


def _datasources(part: Any) -> Iterator[dict[str, str]]:
    if isinstance(part, dict):
        if "datasource" in part:
            yield part["datasource"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _datasources(each)


def test_every_panel_says_what_it_shows(board: dict[str, Any]) -> None:
    assert len({panel["title"] for panel in panels(board)}) == len(panels(board))
    for panel in panels(board):
        assert panel["description"].endswith((".", ").")), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None


def test_panels_have_their_own_place(board: dict[str, Any]) -> None:
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & taken, panel["title"]
        taken |= cells


def test_lines_are_drawn_where_alerts_fire(board: dict[str, Any]) -> None:
    """As far as a description says where that is."""
    rules = {
        rule["alert"]: rule["expr"]
        for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    }
    named = 0
    for panel in panels(board):
        steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        for alert, number, unit in re.findall(r"(Carillon\w+) at ([\d.]+) (%|s)", panel["description"]):
            limit = float(number) / (100 if unit == "%" else 1)
            assert limit in steps, panel["title"]
            assert re.search(rf"> {limit:g}\b", rules[alert]), panel["title"]
            named += 1
    assert named >= 5
