"""Which port a request came in by: where operators have one of their own, the public one lacks what is theirs."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def is_public(request: Request) -> bool:
    """Whether it came in by the public one of two ports. Asks the socket: what a request says of itself is no proof."""
    port = request.app.state.operator_port
    return port is not None and (request.scope.get("server") or (None, None))[1] != port


def is_operators(request: Request) -> bool:
    """Whether it came in by a port that only operators have."""
    return request.app.state.operator_port is not None and not is_public(request)


def private(route: Route) -> Route:
    """The same route, which the public one of two ports lacks."""

    async def endpoint(request: Request) -> Response:
        if is_public(request):
            raise HTTPException(404)
        response: Response = await route.endpoint(request)
        return response

    return Route(route.path, endpoint)
