"""The tests of the HTTP contract once more, unchanged, with the app on Sentinels and on a Cluster."""

import pytest

from tests.stores import TOPOLOGIES, Backend, backend_of
from tests.test_app import *  # noqa: F403 - they are collected here, too

pytestmark = [pytest.mark.anyio, pytest.mark.slow]  # type: ignore[assignment] # test_app has one


@pytest.fixture(params=TOPOLOGIES)
def app_backend(request: pytest.FixtureRequest) -> Backend:
    return backend_of(request.param, request)
