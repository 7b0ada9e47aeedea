"""How many connections a gateway pod has, as its own metrics say."""

import asyncio

import httpx
from prometheus_client.parser import text_string_to_metric_families

METRIC = "carillon_connections"

#: Seconds for one pod, from the connection to the last byte.
TIMEOUT = 5.0


class Unknown(Exception):
    """The pod cannot be asked, or says something else."""


async def connections(client: httpx.AsyncClient, url: str) -> int:
    """Asks one pod. Raises Unknown."""
    try:
        async with asyncio.timeout(TIMEOUT):  # httpx's own timeouts are for each read
            answer = await client.get(url)
    except (httpx.HTTPError, TimeoutError) as error:
        raise Unknown(repr(error)) from None
    if answer.status_code != 200:
        raise Unknown(f"answered {answer.status_code}")
    return read(answer.text)


def read(exposition: str) -> int:
    """The metric's value. Raises Unknown."""
    try:
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                if sample.name == METRIC:
                    return max(0, int(sample.value))
    except (ValueError, OverflowError) as error:  # no exposition; NaN; infinity
        raise Unknown(f"not metrics: {error}") from None
    raise Unknown(f"has no {METRIC}")
