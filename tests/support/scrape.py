"""What a pod's /metrics says."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.stack import Stack


def sample(stack: Stack, name: str, pod: int | None = None, **labels: str) -> float:
    """A metric's value, summed over the pods, or of one; 0 where it does not exist yet."""
    pods = stack.pods if pod is None else [stack.pods[pod - 1]]
    total = 0.0
    for each in pods:
        text = httpx.get(f"{each.internal_url}/metrics", trust_env=False).text
        total += sum(
            found.value
            for family in text_string_to_metric_families(text)
            for found in family.samples
            if found.name == name and labels.items() <= found.labels.items()
        )
    return total
