"""How long to wait before the next attempt."""

import random

FIRST = 0.05


def backoff(attempt: int, longest: float) -> float:
    """Seconds before attempt number `attempt` (1 is the first repetition): doubling, capped, with full jitter."""
    return random.uniform(0, min(longest, FIRST * 2.0 ** min(attempt, 30)))
