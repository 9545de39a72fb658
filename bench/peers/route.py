"""Starlette's routing, requests and responses, and no store."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.peers.bare import BODY


async def answer(request: Request) -> Response:
    """Read what was sent, and answer everything alike."""
    await request.body()
    return Response(BODY, headers={"Cache-Control": "no-store"}, media_type="application/json")


app = Starlette(
    routes=[
        Route("/v1/users/{user_id}/streams", answer, methods=["POST"]),
        Route("/v1/users/{user_id}/streams/{stream_id}/heartbeat", answer, methods=["POST"]),
    ]
)
