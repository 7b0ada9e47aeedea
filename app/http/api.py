"""The server API."""

from fastapi import APIRouter

router = APIRouter(prefix="/api")
