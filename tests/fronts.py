"""Real proxies for the tests: with the configurations of docs/nginx and docs/caddy, and HAProxy as it is by itself."""

import os
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.processes import listens
from tests.conftest import missing
from tests.documents import ROOT
from tests.nodes import Certificates
from tests.servers import free_port, wait_for

DOCS: Final = ROOT / "docs"
HOSTS: Final = ("limits.example", "video.example", "127.0.0.1")


class Front:
    """One process between clients and the service."""

    command: list[str]

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self.certificates = Certificates.issue(directory, HOSTS)
        self.ports = {name: free_port() for name in names}
        """By the names of the configurations."""
        self.videos, self.logs = directory / "video", directory / "logs"
        self.videos.mkdir()
        self.logs.mkdir()

    def start(self) -> None:
        # What Caddy keeps in its user's home stays there.
        env = os.environ | {"XDG_CONFIG_HOME": str(self.logs), "XDG_DATA_HOME": str(self.logs)}
        with (self.logs / "stderr.log").open("ab") as log:
            self._process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=log, env=env)
        for port in self.ports.values():
            wait_for(lambda port=port: self._is_up(port), self.command[0])  # type: ignore[misc] # bound at once

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def _is_up(self, port: int) -> bool:
        assert self._process.poll() is None
        return listens(port)


def trusting(front: Front) -> ssl.SSLContext:
    """What clients of it trust."""
    return ssl.create_default_context(cafile=str(front.certificates.authority))


class Nginx(Front):
    """With api.conf, and edge.conf if wanted. Only names, files and addresses are other ones than there.

    Args:
        directory: For all its files.
        upstream: The port of the service.
        *names: The configurations.
        replace: What else is to be changed, for one test.
    """

    def __init__(self, directory: Path, upstream: int, *names: str, replace: Mapping[str, str] | None = None) -> None:
        binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        if binary is None:
            missing("nginx")
        super().__init__(directory, names)
        (directory / "cache").mkdir()
        (directory / "temporary").mkdir()
        included = []
        for name, port in self.ports.items():
            text = (DOCS / "nginx" / f"{name}.conf").read_text()
            for old, changed in (replace or {}).items():
                text = text.replace(old, changed)
            text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
            text = text.replace("server 127.0.0.1:8080;", f"server 127.0.0.1:{upstream};")
            text = re.sub(r"/etc/nginx/\S+\.(pem|key);", f"{self.certificates.server};", text)
            text = text.replace("/var/log/nginx", str(self.logs)).replace("/srv/video", str(self.videos))
            text = text.replace("/var/cache/nginx/streamlimit", str(directory / "cache"))
            (directory / f"{name}.conf").write_text(text)
            included.append(f"include {directory / name}.conf;")
        temporary = "".join(
            f"{kind}_temp_path {directory / 'temporary' / kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;\n" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(
            f"{user}daemon off;\nworker_processes 1;\npid {directory / 'pid'};\nerror_log {directory / 'error.log'};\n"
            f"events {{}}\nhttp {{\ndefault_type application/octet-stream;\n{temporary}{chr(10).join(included)}\n}}\n"
        )
        self.command = [binary, "-p", str(directory), "-e", str(directory / "error.log")]
        self.command += ["-c", str(directory / "nginx.conf")]


class Caddy(Front):
    """With the Caddyfile, and a certificate of ours instead of one that it gets by itself.

    Args:
        directory: For all its files.
        upstream: The port of the service.
        *names: The configurations: "api".
        replace: What else is to be changed, for one test.
    """

    def __init__(self, directory: Path, upstream: int, *names: str, replace: Mapping[str, str] | None = None) -> None:
        binary = shutil.which("caddy")
        if binary is None:
            missing("caddy")
        super().__init__(directory, names)
        text = (DOCS / "caddy" / "Caddyfile").read_text()
        for old, changed in (replace or {}).items():
            text = text.replace(old, changed)
        quiet = "{\n\tadmin off\n\tauto_https disable_redirects\n"
        text = re.sub(r"^\{\n", quiet, text, count=1, flags=re.MULTILINE)
        own = f"https://127.0.0.1:{self.ports['api']} {{\n\tbind 127.0.0.1\n\ttls {self.certificates.server} "
        text = text.replace("limits.example {", own + str(self.certificates.server))
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{upstream}").replace("/var/log/caddy", str(self.logs))
        (directory / "Caddyfile").write_text(text)
        self.command = [binary, "run", "--config", str(directory / "Caddyfile"), "--adapter", "caddyfile"]


class HAProxy(Front):
    """Passes everything on, an upgrade and what follows it, too: what the service is sent by a proxy without rules.

    Args:
        directory: For all its files.
        upstream: The port of the service.
        *names: The configurations: "api".
        replace: What is to be changed, for one test.
    """

    def __init__(self, directory: Path, upstream: int, *names: str, replace: Mapping[str, str] | None = None) -> None:
        binary = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
        if binary is None:
            missing("haproxy")
        super().__init__(directory, names)
        text = (
            "defaults\n  mode http\n  timeout client 10s\n  timeout server 10s\n  timeout connect 1s\n"
            "  http-reuse always\n"
            f"frontend api\n  bind 127.0.0.1:{self.ports['api']} ssl crt {self.certificates.server}\n"
            f"  default_backend service\nbackend service\n  server service 127.0.0.1:{upstream}\n"
        )
        for old, changed in (replace or {}).items():
            text = text.replace(old, changed)
        (directory / "haproxy.cfg").write_text(text)
        self.command = [binary, "-f", str(directory / "haproxy.cfg"), "-db"]
