"""One way to open a Redis or Valkey, so that every part of the program bears its absence alike."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostConnectionError

CONNECT_TIMEOUT_SECONDS = 2.0
ANSWER_TIMEOUT_SECONDS = 2.0
"""Every command and script of ours takes well under a millisecond: who has not answered by then will not."""
CONNECTIONS = 32
"""Of one process. A command holds one for less than a millisecond, and a server has room for some 10,000 in all."""
IDLE_SECONDS_BEFORE_A_PING = 25
"""Load balancers and cloud offers drop connections after idle times that start at about a minute."""


def open_redis(url: str, *, answer_seconds: float = ANSWER_TIMEOUT_SECONDS) -> Redis:
    """A client of the loop that uses it first; nothing is connected yet. Values come back as bytes.

    A command is tried once more, at once, when its connection turns out to be dead: so every command sent through
    it must be harmless when it runs twice. Nothing is tried for longer: who calls knows better what to do without.

    Blocking commands (`BLPOP`, pub/sub) need a client of their own: they would wait for less than they mean to, and
    keep connections from the others.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=ANSWER_TIMEOUT_SECONDS,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=answer_seconds,
        socket_keepalive=True,
        health_check_interval=IDLE_SECONDS_BEFORE_A_PING,
        retry=Retry(NoBackoff(), 1, supported_errors=(LostConnectionError,)),
        # The older protocol: none of what the newer one brings is used, and it costs a handshake for each connection.
        protocol=2,
    )
    return Redis.from_pool(pool)
