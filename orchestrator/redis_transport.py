"""kombu's Redis transport, less three ways to lose a message: popped and not yet written down, unreadable, and back
while it is still worked on. And less its round trips: several messages are taken by one, and acknowledged by one.

kombu pops a message, and writes it to `unacked` once it has read the reply: what a worker had popped when it was killed
is gone (celery #7950, kombu #305), and a busy worker leaves a reply unread for as long as it is busy. Here both are one
script on the server. As a script cannot block, a channel that finds nothing waits with a BLMOVE that moves a message
from the end of its list to the same place, then asks again.

`unacked` is written as kombu writes it, so that its own acknowledging and restoring go on as they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import Empty
from time import monotonic, time
from typing import Any, Final, Protocol

from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as redis_transport
from kombu.utils.encoding import bytes_to_str

from orchestrator.garbled import as_envelope, read_entry

# KEYS: unacked, unacked_index, then the lists in their order. ARGV: now, the moment before which whoever has a message
# has given no sign of life for too long, then the most to take of each list. Answers whether there is such a message,
# then lists and what was found on them. What is no message is handed out unrecorded: it will be kept as evidence, and
# nobody waits for it.
_TAKE: Final = """
local found = {#redis.call('ZRANGE', KEYS[2], '-inf', ARGV[2], 'BYSCORE', 'LIMIT', 0, 1)}
for i = 3, #KEYS do
  for _ = 1, tonumber(ARGV[i]) do
    local entry = redis.call('RPOP', KEYS[i])
    if not entry then break end
    local is_json, message = pcall(cjson.decode, entry)
    local properties = is_json and type(message) == 'table' and message.properties
    local info = type(properties) == 'table' and properties.delivery_info
    if type(info) == 'table' and type(properties.delivery_tag) == 'string'
       and type(info.exchange) == 'string' and type(info.routing_key) == 'string' then
      local address = cjson.encode(info.exchange) .. ',' .. cjson.encode(info.routing_key)
      redis.call('HSET', KEYS[1], properties.delivery_tag, '[' .. entry .. ',' .. address .. ']')
      redis.call('ZADD', KEYS[2], ARGV[1], properties.delivery_tag)
    end
    found[#found + 1] = KEYS[i]
    found[#found + 1] = entry
  end
end
return found
"""

LOOK_SECONDS: Final = 1.0
"""How often a worker without room asks all the same: a sweep takes no room."""


class Appetite(Protocol):
    """What a worker would take now; asked on the thread that reads from the broker."""

    def find_most(self, queues: Sequence[str]) -> Mapping[str, int]:
        """The most messages to take of each of these queues, in the order in which to take them."""

    def has_room(self) -> bool:
        """Whether there is room for a job: if not, there is no need to wait for one."""

    def find_wait_seconds(self) -> float | None:
        """For how long to wait for a job before the other queues are looked at; None is as long as kombu does."""


class Hungry:
    """Takes one message at a time, of whatever queue, as kombu does."""

    def find_most(self, queues: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(queues, 1)

    def has_room(self) -> bool:
        return True

    def find_wait_seconds(self) -> float | None:
        return None


class QoS(redis_transport.QoS):
    """Knows what is in this worker's hands, acknowledges in groups, and looks for messages of dead workers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._acknowledged: list[str] = []

    def can_consume(self) -> bool:
        if isinstance(self.channel.appetite, Hungry):
            return bool(super().can_consume())
        return bool(self.channel.wants_any())

    def append(self, message: Any, delivery_tag: str) -> None:
        """What was taken is recorded already."""
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Told to the server by the next `flush`: a message acknowledged late changes nothing."""
        self._acknowledged.append(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        if not self.channel.connection.flushes_at_each_turn:
            self.flush()

    def flush(self) -> None:
        """Tell the server of all that was acknowledged."""
        tags, self._acknowledged = self._acknowledged, []
        if tags:
            with self.pipe_or_acquire() as pipe:
                pipe.zrem(self.unacked_index_key, *tags).hdel(self.unacked_key, *tags).execute()

    def restore_unacked_once(self, *arguments: Any, **options: Any) -> None:
        self.flush()
        super().restore_unacked_once(*arguments, **options)

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        """First say that ours is alive, as a heartbeat does for its run, while whoever has them works on them.

        A message that came back while its job still ran would be acknowledged, for both, by whoever got it. Were the
        first one killed after it had committed, and before it had told the result, no message would be left to tell it.
        """
        works = self.channel.works_on_what_it_has()
        if works and (in_hand := self._delivered.keys() - self._dirty):
            with self.channel.conn_or_acquire() as client:
                client.zadd(self.unacked_index_key, dict.fromkeys(in_hand, time()), xx=True)
        # kombu's own way to find that there is none takes three round trips, each second, of each worker.
        if self.channel.may_find_abandoned or not works:
            super().restore_visible(*arguments, **options)


class Channel(redis_transport.Channel):
    """Takes messages and records them in one step. Overrides the two halves of kombu's poll: sending, and reading."""

    QoS = QoS

    appetite: Appetite = Hungry()
    """Of the worker that consumes from it."""
    on_poll: Callable[[Sequence[str]], None] | None = None
    """Told of the queues whenever the server has answered whether there is a message on one of them."""
    may_find_abandoned = True
    """Messages that dead workers had taken; as the server last said."""

    _client_of_pool: Any = None
    _is_waiting = False
    _has_waited_in_vain = False
    _asked: Sequence[str] = ()
    _asked_at = 0.0
    _in_poll: Any
    _brpop_sent_at: Any = 0.0

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """kombu makes a client for each command, which costs more than the command."""
        if self._client_of_pool is None or self._client_of_pool.connection_pool is not self.pool:
            self._client_of_pool = self._create_client()
        yield client or self._client_of_pool

    def works_on_what_it_has(self) -> bool:
        """For a worker to say otherwise: what it was given then comes back, as if it were dead."""
        return True

    def wants_any(self) -> bool:
        """Whether to ask now. Without room for a job it is only now and then, for what takes none."""
        return self.appetite.has_room() or self._in_poll or monotonic() - self._brpop_sent_at >= LOOK_SECONDS

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues: Sequence[str] = self._queue_cycle.consume(len(self.active_queues))
        most = self.appetite.find_most(queues)
        if not most:
            return
        now = monotonic()
        if self._has_waited_in_vain:
            self._is_waiting = self._asked_at + LOOK_SECONDS > now and most.keys() <= set(self._asked)
        wait_seconds = self.appetite.find_wait_seconds() or timeout or self.brpop_timeout
        command = self._build_wait(wait_seconds) if self._is_waiting else self._build_take(most, now)
        self._in_poll = self.client.connection
        self._brpop_sent_at = now
        self.client.connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> bool:
        if self._is_waiting:
            self._end_wait(**options)
            raise Empty
        self._has_waited_in_vain = False
        may_find_abandoned, *found = self._read_reply("EVAL", **options)
        self.may_find_abandoned = bool(may_find_abandoned)
        if self.may_find_abandoned:  # at once, as the next time kombu does so by itself may be a second off
            self.connection.cycle.maybe_restore_messages()
        if self.on_poll is not None:
            self.on_poll(self._asked)
        if not found:
            self._is_waiting = self.appetite.has_room()
            raise Empty
        for key, entry in zip(found[::2], found[1::2], strict=True):
            queue = bytes_to_str(key).rsplit(self.sep, 1)[0]
            self.connection._deliver(read_entry(bytes_to_str(entry)), queue)
        return True

    def _build_take(self, most: Mapping[str, int], now: float) -> tuple[Any, ...]:
        self._asked, self._asked_at = tuple(most), now
        lists = {self._q_for_pri(queue, priority): most[queue] for priority in self.priority_steps for queue in most}
        keys = (self.unacked_key, self.unacked_index_key, *lists)
        now_by_all = time()
        return ("EVAL", _TAKE, len(keys), *keys, now_by_all, now_by_all - self.visibility_timeout, *lists.values())

    def _build_wait(self, timeout: float) -> tuple[Any, ...]:
        """On one list, as BLMOVE knows no more: the first asked for, as a second's delay does no harm to the others."""
        return ("BLMOVE", self._asked[0], self._asked[0], "RIGHT", "RIGHT", timeout)

    def _end_wait(self, **options: Any) -> None:
        """A message, or that there was none, is only a reason to look; the latter, where there is more to look for."""
        self._is_waiting = False
        self._has_waited_in_vain = self._read_reply("BLMOVE", **options) is None

    def _read_reply(self, command: str, **options: Any) -> Any:
        try:
            return self.client.parse_response(self.client.connection, command, **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()


class Transport(redis_transport.Transport):
    """Delivers whatever stood on the list as a message, and hands out channels that lose none."""

    Channel = Channel

    flushes_at_each_turn = False

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Celery acknowledges at the beginning of a turn of its loop; the server is told at the end of the same."""
        super().register_with_event_loop(connection, loop)
        loop.on_tick.add(self._flush)
        self.flushes_at_each_turn = True

    def _flush(self) -> None:
        cycle: Any = self.cycle
        for channel in cycle._channels:
            channel.qos.flush()

    def _deliver(self, message: Any, queue: str) -> None:
        super()._deliver(as_envelope(message), queue)


def install() -> None:
    """Make every redis:// URL of this process use it; call before the first connection."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
    # kombu offers no hook for its reader, and what it cannot read ends the worker.
    vars(redis_transport)["loads"] = read_entry
