"""Probes. They answer for the pod, not for the worker that happens to be asked (N1)."""

from typing import Any

from fastapi import APIRouter, Request, Response, status

from app.server.pod import Slot

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Alive: this worker's event loop runs")
async def healthz() -> dict[str, str]:
    return {"status": "alive"}


@router.get("/readyz", summary="Ready: every worker of the pod can serve clients")
async def readyz(request: Request, response: Response) -> dict[str, Any]:
    """503 names the worst worker: it starts, lags, does not reach the broker or is deaf, stalled or draining."""
    slot: Slot = request.app.state.slot
    verdict = slot.pod.worst()
    if not verdict.ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return {
        "status": "ready" if verdict.ready else "unready",
        "state": verdict.state.name.lower(),
        "reason": verdict.reason,
        "workers": [other.describe() for other in slot.pod.live()],
    }


@router.get("/startupz", summary="Started: every worker has come up once, with or without the broker (N2)")
async def startupz(request: Request, response: Response) -> dict[str, Any]:
    slot: Slot = request.app.state.slot
    started = slot.pod.started
    if not started:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return {"status": "started" if started else "starting"}
