"""How many connections a pod has, read from what its metrics say."""

import pytest

from app.deletion_cost.connections import Unknown, read


def test_the_value_is_read_among_others() -> None:
    text = "# HELP carillon_connections Open.\n# TYPE carillon_connections gauge\ncarillon_connections 41.0\nother 7\n"
    assert read(text) == 41


def test_a_moment_below_zero_counts_as_none() -> None:
    assert read("carillon_connections -1.0\n") == 0


@pytest.mark.parametrize(
    "text",
    ["", "other 7\n", "<html>Not here</html>", "carillon_connections NaN\n", "carillon_connections +Inf\n", '{"a":1}'],
)
def test_anything_else_is_unknown(text: str) -> None:
    with pytest.raises(Unknown):
        read(text)
