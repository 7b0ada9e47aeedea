"""Tokens of the clients, signed as the deployment's own backend would."""

from time import time

from joserfc import jwt
from joserfc.jwk import OctKey

from loadtest.plan import Plan

#: Seconds; a run is shorter.
TTL = 24 * 3600


def token(plan: Plan, user: str) -> str:
    """A token (HS256) for the rooms of the run."""
    rooms = [f"{plan.namespace}:*"]
    claims = {"sub": user, "exp": int(time()) + TTL, "rooms": rooms, "publish": rooms}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(plan.secret))
