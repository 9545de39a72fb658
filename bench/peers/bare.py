"""A bare ASGI application, which answers everything alike: what HTTP itself costs on uvicorn."""

from starlette.types import Receive, Scope, Send

BODY = (
    b'{"stream_id":"1.AaIK2yA_A-26iN4Z5RI.ync0fIc30MlWgRcO","expires_at":"2026-11-24T00:02:32.527Z",'
    b'"ttl_seconds":90,"heartbeat_seconds":27.602}'
)
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(BODY)).encode()),
    (b"cache-control", b"no-store"),
]


async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - the body, if any, is left unread
    """Answer one request."""
    if scope["type"] != "http":
        raise NotImplementedError  # so an application says that it has no lifespan
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
