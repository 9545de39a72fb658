"""Runs the service: the embedded store if wanted, a listening socket, and one or more worker processes."""

import asyncio
import gc
import logging
import logging.config
import multiprocessing
import os
import resource
import signal
import socket
import sys
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, NoReturn

import uvicorn
from starlette.applications import Starlette

from streamlimit.app import create_app
from streamlimit.audit import Audit
from streamlimit.authenticator import Authenticator
from streamlimit.counters import Counters
from streamlimit.dispatch import new_counters
from streamlimit.drain import DrainingServer
from streamlimit.embedded import EmbeddedStore
from streamlimit.errors import StreamlimitError
from streamlimit.heartbeat_protocol import HeartbeatProtocol
from streamlimit.keys import Keys
from streamlimit.log_lines import LineFormatter
from streamlimit.secret import load_or_make_secret
from streamlimit.settings import Settings
from streamlimit.tracker import StreamTracker
from streamlimit.workers import OF_TERMINAL, Workers

_BACKLOG: Final = 2048
_SOCKET_BUFFER_BYTES: Final = 32 * 1024
"""Of each connection and direction, in the kernel, which allows for twice as much. What is sent and not read stays
there, and by itself it would grow to megabytes; requests and answers are small."""
_GARBAGE_THRESHOLD: Final = 20_000
"""Objects between two collections; Python's own 700 are less than what one tick of the event loop has in hand."""
_OTHER_FILES: Final = 500
"""Open ones of a worker that are no callers' connections: those to the store, above all."""
_HEADERS: Final = [("X-Content-Type-Options", "nosniff")]
"""Of every answer. Put here, they cost no more than one bytes object."""
_FINISH_SECONDS: Final = 1.0
"""Beyond the budget of a request, for what is under way when the listeners close: its body may still be coming."""
_LOGGING: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": LineFormatter, "fmt": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
    # Its requests, which httpx2 logs at INFO, are those for the key set.
    "loggers": {name: {"level": "WARNING"} for name in ("uvicorn", "httpx2", "httpcore2")},
}
_logger = logging.getLogger(__name__)


class ServeError(StreamlimitError):
    """The service cannot run; the message says why and what to do."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C; then drain (SIGTERM only), finish the requests under way, and stop.

    Raises:
        StreamlimitError: It cannot start.
        OSError: The data directory cannot be used.
    """
    logging.config.dictConfig(_LOGGING)
    # Until it serves, and when it has served and the store is still to be stopped.
    signal.signal(signal.SIGTERM, _exit)
    _heed_hangup()
    with ExitStack() as stack:
        if not settings.secrets:
            load_or_make_secret(settings.data_dir)
        if settings.is_embedded:
            epoch_key = Keys(settings.key_prefix).epochs[0]
            store = EmbeddedStore(settings.embedded_port, settings.data_dir, epoch_key, settings.rules.ttl_ms)
            stack.enter_context(store)
        _allow_open_files(settings.max_connections + _OTHER_FILES)
        listeners = [stack.enter_context(_listen(settings.host, settings.port, "--port"))]
        if settings.operator_port is not None:
            of_operators = _listen(settings.operator_host, settings.operator_port, "--operator-port")
            listeners.append(stack.enter_context(of_operators))
        urls = [_url(listener) for listener in listeners]
        _announce(settings, *urls)
        operator_port = listeners[1].getsockname()[1] if len(listeners) > 1 else None
        config = uvicorn.Config(
            partial(worker_app, settings, new_counters(), operator_port),
            factory=True,
            workers=settings.workers,
            loop="uvloop",
            http=HeartbeatProtocol,
            ws="none",
            lifespan="on",
            log_config=_LOGGING,
            # Paths hold stream ids, which are capabilities.
            access_log=False,
            server_header=False,
            # Nobody asks from where a request comes, so nobody needs to believe what it says of that.
            proxy_headers=False,
            headers=_HEADERS,
            backlog=_BACKLOG,
            # Longer than the minute for which load balancers keep idle connections, so that they close them, not we.
            timeout_keep_alive=75,
        )
        times = settings.drain_seconds, settings.budget_seconds + _FINISH_SECONDS
        try:
            if settings.workers > 1:
                Workers(config, listeners, *times).run()
            else:
                DrainingServer(config, *times).run(sockets=listeners)
        finally:
            _logger.info("Stopped")


def worker_app(settings: Settings, counters: Counters, operator_port: int | None) -> Starlette:
    """Build the application of one worker process."""
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the parent heeds it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_TERMINAL)  # from here on uvicorn listens to Ctrl-C

    secrets = settings.secrets or [load_or_make_secret(settings.data_dir)]
    audit = Audit(settings.log_user_ids, secrets[0])

    def make_tracker() -> StreamTracker:
        _stop_with_parent()
        return StreamTracker.from_url(
            settings.store_url,
            secrets,
            settings.rules,
            settings.key_prefix,
            budget_seconds=settings.budget_seconds,
            name_user=audit.name,
        )

    # What was imported stays, and need not be looked at.
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    app = create_app(
        make_tracker,
        Authenticator.from_settings(settings),
        counters=counters,
        operator_port=operator_port,
        origins=settings.origins,
        audit=audit,
        any_host=settings.insecure,
    )
    app.state.max_connections = settings.max_connections
    app.state.request_seconds = settings.request_seconds
    return app


def _exit(*_: object) -> NoReturn:
    sys.exit(0)


def _heed_hangup() -> None:
    """Treat SIGHUP as Ctrl-C where it means that the terminal was closed; elsewhere say that there is no reload."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return  # nohup
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        has_terminal = False
    else:
        has_terminal = True

    def hang_up(*_: object) -> None:
        if has_terminal:
            signal.raise_signal(signal.SIGINT)
        else:
            _logger.info("SIGHUP changes nothing: settings are read at the start")

    signal.signal(signal.SIGHUP, hang_up)


def _stop_with_parent() -> None:
    """Let a worker end when its parent was killed: it would hold the port of the next start."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.remove_reader(parent.sentinel)
            signal.raise_signal(signal.SIGINT)  # no drain: the embedded store ends, too

        loop.add_reader(parent.sentinel, stop)


def _allow_open_files(wanted: int) -> None:
    """Raise the limit on open files, which the workers inherit, as far as this process may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < wanted:
            _logger.warning(
                "The system allows %d open files; MAX_CONNECTIONS takes %d: set it lower, or ulimit -Hn higher",
                allowed,
                wanted,
            )


def _listen(host: str, port: int, option: str) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ServeError(f"cannot listen on {host}:{port} ({reason}): choose another port with {option}") from None
    # Connections take over these.
    for option_name in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        listener.setsockopt(socket.SOL_SOCKET, option_name, _SOCKET_BUFFER_BYTES)
    listener.set_inheritable(True)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(settings: Settings, url: str, url_of_operators: str = "") -> None:
    store = settings.store_address + (" (embedded)" if settings.is_embedded else "")
    limits = f"limit {settings.limit}, TTL {settings.ttl_seconds} s"
    _logger.info("Serving %s with %d worker(s), store %s, %s", url, settings.workers, store, limits)
    if url_of_operators:
        _logger.info("Serving operators on %s", url_of_operators)
    if not settings.enforce:
        _logger.warning("Shadow mode: the limit is not enforced")
    public = " and ".join(settings.public_addresses.values())
    if settings.authenticates:
        _logger.info("Callers are asked who they are: %s", ", ".join(_kinds_of_keys(settings)))
    elif public:
        _logger.warning("Nobody is asked for a key, and %s is public: whoever connects may do everything", public)
    else:
        _logger.info("Nobody is asked for a key, since none is configured; only this machine can connect")


def _kinds_of_keys(settings: Settings) -> list[str]:
    counts = [f"{len(digests)} {role} key(s)" for role, digests in settings.digests.items() if digests]
    return [*counts, f"players' tokens of {settings.jwt_issuer}"] if settings.verifies_tokens else counts
