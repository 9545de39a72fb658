"""What joins the servers of a store: a Cluster's hash slots, the Sentinels. See test_doctor_on_topologies.py, too."""

import pytest

from streamlimit.survey import View, judged_coverage, judged_sentinels
from tests.servers import RedisServer, free_port
from tests.test_doctor import examined


@pytest.mark.parametrize("url", ["redis+cluster://127.0.0.1:{}", "redis+sentinel://127.0.0.1:{}/streams"])
def test_what_is_not_there_is_told_in_one_finding(url: str) -> None:
    (told,) = examined(url.format(free_port()))

    assert told.state == "problem"
    assert "Connect call failed" in told.found
    assert "host and port in the URL" in told.advice


def test_a_server_that_is_in_no_cluster_is_told(valkey_server: RedisServer) -> None:
    (told,) = examined(f"redis+cluster://127.0.0.1:{valkey_server.port}")

    assert (told.check, told.state) == ("cluster", "problem")
    assert "cluster support disabled" in told.found
    assert "whether they form a cluster" in told.advice


@pytest.mark.parametrize(
    ("answers", "state", "found"),
    [
        ([3, 3, 3], "ok", "3 in the URL answer"),
        ([3, 3, "10.0.0.1:26379: no answer in time"], "warning", "2 of 3 in the URL answer"),
        ([3], "warning", "1 in the URL answer"),
        ([1, 1, 1], "warning", "1 are usable"),
        (["10.0.0.1:26379: no answer in time"], "problem", "none answers: 10.0.0.1:26379"),
    ],
)
def test_sentinels_are_judged_by_how_many_could_agree(answers: list[int | str], state: str, found: str) -> None:
    told = judged_sentinels(answers)

    assert told.state == state
    assert found in told.found


@pytest.mark.parametrize(
    ("views", "state", "found"),
    [
        ([View(16_384, 3, "ok")] * 3, "ok", "16384 of 16384"),
        ([View(16_384, 3, "ok"), View(16_384, 3, "fail")], "problem", "the state is fail"),
        ([View(16_384, 3, "ok"), View(16_374, 3, "ok")], "problem", "16374 of 16384"),
        ([View(16_384, 2, "ok")], "warning", "by 2 primaries"),
        ([View(16_384, 3, "")], "ok", "CLUSTER INFO is refused"),
        ([], "problem", "no primary answers"),
    ],
)
def test_coverage_is_judged_by_the_primary_with_the_worst_news(views: list[View], state: str, found: str) -> None:
    told = judged_coverage(views)

    assert told.state == state
    assert found in told.found
