"""FastAPI and redis-py as commonly written: pydantic models, registered scripts, one call of Redis a request."""

import hmac
import os
import random
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Response
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis

SCRIPTS = Path(__file__).parents[2] / "streamlimit" / "lua"
SECRET = os.environ["SECRET"].encode()
TTL_SECONDS = int(os.environ["TTL_SECONDS"])
LIMIT, SEATS = 3, 10

redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
admit_script = redis.register_script((SCRIPTS / "admit.lua").read_text())
heartbeat_script = redis.register_script((SCRIPTS / "heartbeat.lua").read_text())

UserId = Annotated[str, InPath(pattern=r"^[A-Za-z0-9._~@|:+=-]{1,128}$")]
Text = Annotated[str, Field(min_length=1, max_length=64)]


class AdmissionRequest(BaseModel):
    """What a player sends."""

    model_config = ConfigDict(extra="forbid")

    device_id: Text | None = None
    device_name: Text | None = None
    content_id: Text | None = None


class Lease(BaseModel):
    """What it is told."""

    stream_id: str
    expires_at: datetime
    ttl_seconds: int = TTL_SECONDS
    heartbeat_seconds: float


class Admission(Lease):
    """The same, of a new stream."""

    stream_ref: str
    user_id: str
    seat: int
    device_id: str | None
    device_name: str | None
    content_id: str | None
    started_at: datetime
    live: int
    limit: int


class Heartbeat(BaseModel):
    """One heartbeat of a batch."""

    user_id: str
    stream_id: str


class Heartbeats(BaseModel):
    """A batch."""

    streams: list[Heartbeat] = Field(max_length=1000)


class Leases(BaseModel):
    """Its answers; None for a stream that has ended."""

    streams: list[Lease | None]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close the connections at the end."""
    yield
    await redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.post("/v1/users/{user_id}/streams", status_code=201)
async def admit(user_id: UserId, body: AdmissionRequest, response: Response) -> Admission:
    """Start a stream, or refuse it."""
    minted = int(time.time() * 1000).to_bytes(6) + LIMIT.to_bytes(1) + secrets.token_bytes(7)
    ref = urlsafe_b64encode(minted).rstrip(b"=").decode()
    signature = hmac.digest(SECRET, f"\0{user_id}\0{ref}".encode(), "sha256")
    sig = urlsafe_b64encode(signature[:12]).decode()
    keys = [f"user:{{{user_id}}}", f"ended:{{{user_id}}}", "epoch:{0}"]
    keys += [f"stream:{{{user_id}}}:{seat}" for seat in range(1, SEATS + 1)]
    device = [body.device_id or "", body.device_name or "", body.content_id or ""]
    rules: list[int | str] = [LIMIT, TTL_SECONDS * 1000, TTL_SECONDS * 1000 // 3, "", LIMIT, "", ""]
    reply = await admit_script(keys=keys, args=["", ref, sig, *rules, *device, "", "1", "", ""])
    if reply[0] != "admitted":
        raise HTTPException(409, "limit reached")
    _, _, live, limit, row, _, sig, _ = reply
    seat, pttl, ref, started_at, *_ = row
    response.headers["Cache-Control"] = "no-store"
    return Admission(
        **lease(f"{seat}.{ref}.{sig}", started_at + pttl).model_dump(),
        **body.model_dump(),
        stream_ref=f"{seat}.{ref}",
        user_id=user_id,
        seat=seat,
        started_at=datetime.fromtimestamp(started_at / 1000, UTC),
        live=live,
        limit=limit,
    )


@app.post("/v1/users/{user_id}/streams/{stream_id}/heartbeat")
async def heartbeat(user_id: UserId, stream_id: str, response: Response) -> Lease:
    """Keep a stream live."""
    (expires_at,) = await heartbeat_script(**beat(user_id, stream_id))
    if not expires_at:
        raise HTTPException(410, "the stream has ended")
    response.headers["Cache-Control"] = "no-store"
    return lease(stream_id, expires_at)


@app.post("/v1/heartbeats")
async def heartbeats(body: Heartbeats) -> Leases:
    """Keep many streams live."""
    async with redis.pipeline(transaction=False) as pipeline:
        for one in body.streams:
            await heartbeat_script(**beat(one.user_id, one.stream_id), client=pipeline)
        replies = await pipeline.execute()
    found = zip(body.streams, (expires_at for (expires_at,) in replies), strict=True)
    return Leases(streams=[lease(one.stream_id, expires_at) if expires_at else None for one, expires_at in found])


def beat(user_id: str, stream_id: str) -> dict[str, Any]:
    """The script's keys and arguments."""
    seat, ref, sig = stream_id.split(".")
    return {"keys": [f"stream:{{{user_id}}}:{seat}"], "args": [TTL_SECONDS * 1000, ref, sig]}


def lease(stream_id: str, expires_at: int) -> Lease:
    """What the player is told."""
    return Lease(
        stream_id=stream_id,
        expires_at=datetime.fromtimestamp(expires_at / 1000, UTC),
        heartbeat_seconds=round(TTL_SECONDS / 3 * random.uniform(0.85, 0.95), 3),
    )
