"""Whether the network of the tests passes on what it should, and nothing else."""

import socket
from collections.abc import Iterator

import pytest

from tests.network import Clients, Network
from tests.servers import HAVE_SUBNETS, RedisServer, free_subnet, valkey, wait_for

pytestmark = pytest.mark.skipif(not HAVE_SUBNETS, reason="without an address of its own for each server")

PORT = 6379


@pytest.fixture(scope="module")
def subnet() -> str:
    return free_subnet()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, subnet: str) -> Iterator[RedisServer]:
    server = valkey(tmp_path_factory.mktemp("valkey"), host=f"{subnet}.1", port=PORT)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def running_network(subnet: str) -> Iterator[Network]:
    """Before the server 1, and 2, which does not run."""
    network = Network({f"{subnet}.{number + 100}": f"{subnet}.{number}" for number in (1, 2)}, [PORT])
    network.start()
    yield network
    network.stop()


@pytest.fixture
def network(running_network: Network, server: RedisServer) -> Iterator[Network]:
    say(server, "FLUSHALL")
    yield running_network
    running_network.heal()


@pytest.fixture
def door(subnet: str, network: Network) -> Iterator[socket.socket]:  # noqa: ARG001 - it is open
    """A client's connection."""
    with socket.create_connection((f"{subnet}.101", PORT), timeout=5) as client:
        assert ask(client, "PING") == "+PONG"
        client.settimeout(0.2)
        yield client


def ask(client: socket.socket, command: str) -> str:
    client.sendall(f"{command}\r\n".encode())
    return client.recv(64).decode().strip()


def say(server: RedisServer, command: str) -> str:
    """Ask the server itself, past the network."""
    with socket.create_connection((server.host, server.port), timeout=5) as client:
        return ask(client, command)


def counted(server: RedisServer) -> bool:
    return say(server, "EXISTS counter") == ":1"


def test_what_is_under_way_is_answered_when_the_partition_has_healed(
    network: Network, door: socket.socket, server: RedisServer
) -> None:
    network.partition([server.host], clients="outside")
    with pytest.raises(TimeoutError):
        ask(door, "INCR counter")
    assert not counted(server)
    network.heal()

    assert door.recv(64) == b":1\r\n"


def test_what_is_under_way_arrives_though_its_sender_has_gone(
    network: Network, door: socket.socket, server: RedisServer
) -> None:
    network.partition([server.host], clients="outside")
    door.sendall(b"INCR counter\r\n")
    door.close()
    network.heal()

    wait_for(lambda: counted(server), "the command")


def test_who_gave_up_before_being_connected_sends_nothing(network: Network, subnet: str, server: RedisServer) -> None:
    network.partition([server.host], clients="outside")
    with socket.create_connection((f"{subnet}.101", PORT), timeout=0.2) as client, pytest.raises(TimeoutError):
        ask(client, "INCR counter")
    with socket.create_connection((f"{subnet}.101", PORT), timeout=5) as patient:
        patient.sendall(b"INCR other\r\n")
        network.heal()
        assert patient.recv(64) == b":1\r\n"

    assert not counted(server)


@pytest.mark.parametrize(("clients", "passes"), [("everywhere", True), ("inside", True), ("outside", False)])
def test_clients_reach_the_side_where_they_are(
    network: Network, door: socket.socket, server: RedisServer, clients: Clients, *, passes: bool
) -> None:
    network.partition([server.host], clients)
    try:
        answer = ask(door, "PING")
    except TimeoutError:
        answer = ""

    assert bool(answer) == passes


@pytest.mark.parametrize("together", [False, True])
def test_servers_are_known_by_their_addresses(
    network: Network, subnet: str, server: RedisServer, *, together: bool
) -> None:
    other = f"{subnet}.2"
    network.partition([server.host, other] if together else [server.host])
    with socket.create_connection((f"{subnet}.101", PORT), timeout=0.2, source_address=(other, 0)) as client:
        try:
            answer = ask(client, "PING")
        except TimeoutError:
            answer = ""

    assert bool(answer) == together


def test_where_no_server_runs_the_connection_is_closed(network: Network, subnet: str) -> None:  # noqa: ARG001 - it is open
    with socket.create_connection((f"{subnet}.102", PORT), timeout=5) as client:
        assert client.recv(1) == b""


def test_much_passes_to_and_fro(door: socket.socket) -> None:
    door.settimeout(20)
    size = 4_000_000
    door.sendall(f"*2\r\n$4\r\nECHO\r\n${size}\r\n".encode() + b"x" * size + b"\r\n")

    answer = bytearray()
    while not answer.endswith(b"\r\n") or len(answer) < size:
        answer += door.recv(65536)
    assert answer == f"${size}\r\n".encode() + b"x" * size + b"\r\n"


def test_who_closes_is_closed(door: socket.socket) -> None:
    door.settimeout(5)
    assert ask(door, "QUIT") == "+OK"
    assert door.recv(1) == b""
