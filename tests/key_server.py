"""A small HTTP server for the key set of an identity provider, which a test may change, hold up and stop."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class KeyServer:
    """What it answers next, and how often it was asked."""

    def __init__(self, body: str) -> None:
        self.body = body.encode()
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._server = _Server(("127.0.0.1", 0), self)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop it; whoever asks then finds nobody."""
        self.may_answer.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], answers: KeyServer) -> None:
        super().__init__(address, _Handler)
        self.answers = answers

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients hang up on purpose


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        answers = self.server.answers
        answers.asked += 1
        answers.may_answer.wait()
        self.send_response(answers.status)
        for name, value in answers.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answers.body)))
        self.end_headers()
        self.wfile.write(answers.body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def key_server(body: str) -> Iterator[KeyServer]:
    server = KeyServer(body)
    server.start()
    try:
        yield server
    finally:
        server.stop()
