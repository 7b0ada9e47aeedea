"""The demo page, in development mode only (N7)."""

from pathlib import Path

from fastapi import APIRouter
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)
static = StaticFiles(directory=Path(__file__).parent / "static", check_dir=False)
