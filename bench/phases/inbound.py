"""Commands from clients: what one costs a worker."""

from contextlib import ExitStack

from bench.dialect import text_of
from bench.measure import Bench, Figures, Loaded, in_turn, loaded
from bench.product import product

COUNT = 20_000


def run(bench: Bench) -> None:
    with ExitStack() as stack:
        one = loaded(stack, bench, stack.enter_context(product(bench.folder))).members(64)
        ping = '{"type":"ping","id":"' + 60 * "i" + '"}'
        empty = text_of(200).replace("{seq}", "seq=000000000;")
        publish = f'{{"type":"publish","id":7,"room":"empty","data":"{empty}"}}'
        in_turn(
            bench,
            "inbound",
            {"under way": 50},
            {
                "ping": lambda: _commands(one, COUNT, ping, '"pong"'),
                "publish": lambda: _commands(one, COUNT // 4, publish, '"id":7'),
            },
        )


def _commands(one: Loaded, count: int, message: str, expected: str) -> Figures:
    return one.cost(count, lambda: one.load.ask(count, 50, message, expected))
