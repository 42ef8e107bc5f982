"""kombu's Redis transport, less its two ways to lose a message: popped and not yet written down, and unreadable.

kombu pops a message, and writes it to `unacked` once it has read the reply: what a worker had popped when it was killed
is gone (celery #7950, kombu #305), and a busy worker leaves a reply unread for as long as it is busy. Here both are one
script on the server, which answers as BRPOP does. As a script cannot block, a channel that finds nothing waits with a
BLMOVE that moves a message from the end of its list to the same place, then asks again.

`unacked` is written as kombu writes it, so that its own acknowledging and restoring go on as they are.
"""

from collections.abc import Sequence
from queue import Empty
from time import monotonic, time
from typing import Any, Final

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as redis_transport

from orchestrator.beat import MAINTENANCE_QUEUE
from orchestrator.garbled import as_envelope, read_entry

# KEYS: unacked, unacked_index, then the lists in their order. ARGV: now. What is no message is handed out unrecorded:
# it will be kept as evidence, and nobody waits for it.
_TAKE: Final = """
for i = 3, #KEYS do
  local entry = redis.call('RPOP', KEYS[i])
  if entry then
    local is_json, message = pcall(cjson.decode, entry)
    local properties = is_json and type(message) == 'table' and message.properties
    local info = type(properties) == 'table' and properties.delivery_info
    if type(info) == 'table' and type(properties.delivery_tag) == 'string'
       and type(info.exchange) == 'string' and type(info.routing_key) == 'string' then
      local address = cjson.encode(info.exchange) .. ',' .. cjson.encode(info.routing_key)
      redis.call('HSET', KEYS[1], properties.delivery_tag, '[' .. entry .. ',' .. address .. ']')
      redis.call('ZADD', KEYS[2], ARGV[1], properties.delivery_tag)
    end
    return {KEYS[i], entry}
  end
end
return false
"""


class Channel(redis_transport.Channel):
    """Takes a message and records it in one step. Overrides the two halves of kombu's poll: sending, and reading."""

    _is_waiting = False
    _in_poll: Any
    _brpop_sent_at: Any

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues: Sequence[str] = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        wait_seconds = self.brpop_timeout if timeout is None else timeout
        command = self._build_wait(queues, wait_seconds) if self._is_waiting else self._build_take(queues)
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> Any:
        if self._is_waiting:
            self._end_wait(**options)
            raise Empty
        try:
            return super()._brpop_read(**options)
        except Empty:
            self._is_waiting = True
            raise

    def _build_take(self, queues: Sequence[str]) -> tuple[Any, ...]:
        lists: list[str] = [self._q_for_pri(queue, priority) for priority in self.priority_steps for queue in queues]
        keys = (self.unacked_key, self.unacked_index_key, *lists)
        return ("EVAL", _TAKE, len(keys), *keys, time())

    def _build_wait(self, queues: Sequence[str], timeout: float) -> tuple[Any, ...]:
        """On one list, as BLMOVE knows no more: the jobs' one, as a second's delay does no harm to the sweeps."""
        queue = next((queue for queue in queues if queue != MAINTENANCE_QUEUE), queues[0])
        return ("BLMOVE", queue, queue, "RIGHT", "RIGHT", timeout)

    def _end_wait(self, **options: Any) -> None:
        """Whatever it answers, a message or that there was none, is only a reason to look."""
        self._is_waiting = False
        try:
            self.client.parse_response(self.client.connection, "BLMOVE", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None


class Transport(redis_transport.Transport):
    """Delivers whatever stood on the list as a message, and hands out channels that lose none."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        super()._deliver(as_envelope(message), queue)


def install() -> None:
    """Make every redis:// URL of this process use it; call before the first connection."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
    # kombu offers no hook for its reader, and what it cannot read ends the worker.
    vars(redis_transport)["loads"] = read_entry
