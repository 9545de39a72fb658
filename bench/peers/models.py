"""Starlette with pydantic models for bodies and JSONResponse for answers, and no store."""

import random
import secrets
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

TTL_SECONDS = 90


class AdmissionRequest(BaseModel):
    """What a player sends."""

    device_id: str | None = None
    device_name: str | None = None
    content_id: str | None = None


class Lease(BaseModel):
    """What it is told."""

    stream_id: str
    expires_at: datetime
    ttl_seconds: int
    heartbeat_seconds: float


class Admission(Lease):
    """The same, of a new stream."""

    user_id: str
    device_id: str | None
    device_name: str | None
    content_id: str | None


def lease(stream_id: str) -> Lease:
    """One more TTL."""
    return Lease(
        stream_id=stream_id,
        expires_at=datetime.now(UTC) + timedelta(seconds=TTL_SECONDS),
        ttl_seconds=TTL_SECONDS,
        heartbeat_seconds=round(TTL_SECONDS / 3 * random.uniform(0.85, 0.95), 3),
    )


async def admit(request: Request) -> JSONResponse:
    """Start a stream."""
    body = AdmissionRequest.model_validate_json(await request.body())
    stream = lease(secrets.token_urlsafe(24))
    admission = Admission(user_id=request.path_params["user_id"], **stream.model_dump(), **body.model_dump())
    return JSONResponse(admission.model_dump(mode="json"), 201, headers={"Cache-Control": "no-store"})


async def heartbeat(request: Request) -> JSONResponse:
    """Keep a stream live."""
    stream = lease(request.path_params["stream_id"])
    return JSONResponse(stream.model_dump(mode="json"), headers={"Cache-Control": "no-store"})


app = Starlette(
    routes=[
        Route("/v1/users/{user_id}/streams", admit, methods=["POST"]),
        Route("/v1/users/{user_id}/streams/{stream_id}/heartbeat", heartbeat, methods=["POST"]),
    ]
)
