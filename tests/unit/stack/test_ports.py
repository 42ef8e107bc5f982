import socket
from collections.abc import Iterator

import pytest

from orchestrator.stack.ports import LOOPBACK, accepts_connections, find_any_port, find_port_from


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_passed_over(taken_port: int) -> None:
    assert taken_port < find_port_from(taken_port) <= taken_port + 200


def test_a_free_port_is_kept() -> None:
    port = find_any_port()
    assert find_port_from(port) == port


def test_a_connection_tells_that_somebody_listens(taken_port: int) -> None:
    assert accepts_connections(taken_port)
    assert not accepts_connections(find_any_port())
