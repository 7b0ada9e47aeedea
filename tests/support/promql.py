"""Expressions of PromQL, taken apart: which metrics they read, and which labels they expect of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import promql_parser
from promql_parser import AggregateExpr, VectorSelector


@dataclass(frozen=True)
class Selector:
    """`name{label="..."}`"""

    name: str
    labels: frozenset[str]


def selectors(expression: str) -> list[Selector]:
    """Every metric that it reads. Raises ValueError for what is no PromQL."""
    return [
        Selector(node.name or "", frozenset(matcher.name for matcher in node.matchers.matchers))
        for node in _nodes(expression)
        if isinstance(node, VectorSelector)
    ]


def grouped_by(expression: str) -> set[str]:
    """The labels of all `by (...)`."""
    return {
        label
        for node in _nodes(expression)
        if isinstance(node, AggregateExpr) and node.modifier is not None
        for label in node.modifier.labels
    }


def _nodes(expression: str) -> Iterator[object]:
    found: list[object] = []
    promql_parser.walk(promql_parser.parse(expression), found.append)
    yield from found
