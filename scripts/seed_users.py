#!/usr/bin/env python3
"""Give a running service two users to look at, as the service before this one had them.

user-1 has limit 3 and two live streams: it may start another one. user-2 has limit 3 and three: it may not.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

LIMIT = 3
LIVE_STREAMS = {"user-1": 2, "user-2": 3}


HEADERS = {"Content-Type": "application/json"}


def call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    """Send a request and return the JSON of the answer, None where it has none."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, HEADERS, method=method)  # noqa: S310 - as told
    with urlopen(request, timeout=5) as response:  # noqa: S310 - as told
        text = response.read()
    return json.loads(text) if text else None


def seed(user: str, count: int) -> list[dict[str, Any]]:
    """Set the user's limit and start the streams. Their device ids let a second run replace them."""
    call("PUT", user, {"limit": LIMIT})
    devices = [{"device_id": f"seed-{number}", "device_name": f"TV {number}"} for number in range(1, count + 1)]
    return [call("POST", f"{user}/streams", device) for device in devices]


def remove(user: str) -> None:
    """End the user's streams and delete the record."""
    call("DELETE", f"{user}/streams")
    try:
        call("DELETE", user)
    except HTTPError as error:
        if error.code != 404:  # noqa: PLR2004 - Not Found: there was no record
            raise


def keep(users: dict[str, list[dict[str, Any]]]) -> None:
    """Send heartbeats until Ctrl-C; a stream that ended is started again."""
    while True:
        time.sleep(min(stream["heartbeat_seconds"] for streams in users.values() for stream in streams))
        for user, streams in users.items():
            try:
                streams[:] = [call("POST", f"{user}/streams/{stream['stream_id']}/heartbeat") for stream in streams]
            except HTTPError as error:
                if error.code != 410:  # noqa: PLR2004 - Gone
                    raise
                streams[:] = seed(user, len(streams))


def main() -> str | None:
    """Run the command; return what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the service (default: %(default)s)")
    parser.add_argument("--key-file", type=Path, help="holds an operator's API key; for a service that asks for one")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--keep", action="store_true", help="keep the streams live by heartbeats until Ctrl-C")
    what.add_argument("--remove", action="store_true", help="end the streams and delete the users")
    options = parser.parse_args()
    if options.key_file:
        try:
            HEADERS["Authorization"] = f"Bearer {options.key_file.read_text().strip()}"
        except OSError as error:
            return f"{options.key_file}: {error.strerror}"
    users = {f"{options.url.rstrip('/')}/v1/users/{user_id}": count for user_id, count in LIVE_STREAMS.items()}
    try:
        if options.remove:
            for user in users:
                remove(user)
            print(f"Removed {' and '.join(LIVE_STREAMS)}")
            return None
        seeded = {user: seed(user, count) for user, count in users.items()}
        print(", ".join(f"{user_id}: {count} of {LIMIT} streams live" for user_id, count in LIVE_STREAMS.items()))
        if options.keep:
            print("Keeping them live until Ctrl-C", flush=True)
            keep(seeded)
    except HTTPError as error:
        return f"{error.url} answered {error.code}: {error.read().decode(errors='replace')}"
    except (URLError, TimeoutError) as error:
        return f"{options.url} does not answer ({error}): start it with scripts/serve"
    except KeyboardInterrupt:
        pass
    return None


if __name__ == "__main__":
    sys.exit(main())
