import os
import signal
import socket
import stat
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator.stack.embedded_valkey import EmbeddedValkey, prepare_valkey
from orchestrator.stack.ports import LOOPBACK, accepts_connections
from orchestrator.stack.supervisor import Supervisor


@pytest.fixture
def valkey(data_directory: Path) -> EmbeddedValkey:
    return prepare_valkey(data_directory / "valkey")


def test_it_listens_on_the_loopback_only_and_asks_for_its_password(
    valkey: EmbeddedValkey, supervisor: Supervisor
) -> None:
    child = supervisor.start(valkey.child())
    process = psutil.Process(child.pid)
    listening = [connection.laddr.ip for connection in process.net_connections() if connection.status == "LISTEN"]
    assert listening == [LOOPBACK]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=valkey.port, retry=Retry(NoBackoff(), 0)).ping()


def test_its_password_can_be_read_by_its_owner_only(valkey: EmbeddedValkey, supervisor: Supervisor) -> None:
    child = supervisor.start(valkey.child())
    assert valkey.password not in " ".join(psutil.Process(child.pid).cmdline())
    files = [path for path in valkey.directory.iterdir() if path.is_file() and valkey.password in path.read_text()]
    assert {(path.name, stat.S_IMODE(path.stat().st_mode)) for path in files} == {
        ("identity.json", 0o600),
        ("valkey.conf", 0o600),
    }


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_data_and_url_survive_its_end(
    end: signal.Signals, valkey: EmbeddedValkey, supervisor: Supervisor, data_directory: Path
) -> None:
    child = supervisor.start(valkey.child())
    with redis.Redis.from_url(valkey.url) as client:
        client.set("kept", "yes")
    os.kill(child.pid, end)
    supervisor.stop()
    again = prepare_valkey(data_directory / "valkey")
    supervisor.start(again.child())
    assert again.url == valkey.url
    with redis.Redis.from_url(again.url) as client:
        assert client.get("kept") == b"yes"


def test_another_port_is_taken_and_told_when_the_former_is_not_free(
    valkey: EmbeddedValkey, supervisor: Supervisor, data_directory: Path
) -> None:
    with socket.create_server((LOOPBACK, valkey.port)):
        again = prepare_valkey(data_directory / "valkey")
        supervisor.start(again.child())
    assert (again.former_port, again.password) == (valkey.port, valkey.password)
    assert again.port != valkey.port
    assert accepts_connections(again.port)


def test_a_broker_refuses_rather_than_forgets(valkey: EmbeddedValkey, supervisor: Supervisor) -> None:
    supervisor.start(valkey.child())
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        settings = client.config_get("maxmemory-policy", "appendonly", "appendfsync")
    assert settings == {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}
