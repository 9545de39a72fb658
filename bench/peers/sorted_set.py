"""Starlette and redis-py with one sorted set a user, as libraries of semaphores do it: no device, no reason, no 409."""

import os
import uuid
from datetime import UTC, datetime

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

TTL_SECONDS = int(os.environ["TTL_SECONDS"])
LIMIT = 3
ACQUIRE = """
local now = tonumber(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], now, ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
REFRESH = """
local now = tonumber(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
if not redis.call('ZSCORE', KEYS[1], ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], now, ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""

redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
acquire_script = redis.register_script(ACQUIRE)
refresh_script = redis.register_script(REFRESH)


async def admit(request: Request) -> JSONResponse:
    """Start a stream, or refuse it."""
    await request.json()
    now, stream_id = now_ms(), str(uuid.uuid4())
    args: list[int | str] = [now, TTL_SECONDS * 1000, LIMIT, stream_id]
    if not await acquire_script(keys=[key(request)], args=args):
        return JSONResponse({"detail": "limit reached"}, 409)
    return JSONResponse(lease(stream_id, now), 201)


async def heartbeat(request: Request) -> JSONResponse:
    """Keep a stream live."""
    now, stream_id = now_ms(), request.path_params["stream_id"]
    if not await refresh_script(keys=[key(request)], args=[now, TTL_SECONDS * 1000, stream_id]):
        return JSONResponse({"detail": "the stream has ended"}, 410)
    return JSONResponse(lease(stream_id, now))


def key(request: Request) -> str:
    """The user's sorted set."""
    return f"semaphore:{request.path_params['user_id']}"


def now_ms() -> int:
    """Unix ms, by the clock of this machine."""
    return int(datetime.now(UTC).timestamp() * 1000)


def lease(stream_id: str, now: int) -> dict[str, str | int]:
    """What the player is told."""
    expires_at = datetime.fromtimestamp(now / 1000 + TTL_SECONDS, UTC)
    return {"stream_id": stream_id, "expires_at": expires_at.isoformat(), "ttl_seconds": TTL_SECONDS}


app = Starlette(
    routes=[
        Route("/v1/users/{user_id}/streams", admit, methods=["POST"]),
        Route("/v1/users/{user_id}/streams/{stream_id}/heartbeat", heartbeat, methods=["POST"]),
    ]
)
