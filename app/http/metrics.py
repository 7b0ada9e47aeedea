"""GET /metrics: the pod's metrics, whichever worker is asked (N10)."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.telemetry.multiprocess import exposition

router = APIRouter(tags=["telemetry"])


@router.get("/metrics", response_class=Response, summary="Metrics of all workers of this pod")
def read_metrics() -> Response:
    """Prometheus' text format. Runs in a thread, as it reads a few files for each worker."""
    return Response(exposition(), media_type=CONTENT_TYPE_LATEST)
