"""The messages dialect of Anthropic.

Options of its deployments are fields of the request body, sent as they are. `name` of a message has no place in it;
of temperature and top_p the first is sent, up to 1.
"""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from llm_pool.catalog import Deployment
from llm_pool.providers import quota_headers
from llm_pool.providers.anthropic_answers import MessageStream, read_answer, read_count
from llm_pool.providers.anthropic_bodies import build_count_body, build_message_body
from llm_pool.providers.anthropic_errors import find_error, map_error
from llm_pool.providers.base import BaseProvider, as_chunk, is_somebody_there, relay_events, require_address
from llm_pool.providers.http import Connections, HttpAnswer, OpenAnswer, dump_json
from llm_pool.providers.quota_headers import read_quota
from llm_pool.types import Capability, CompletionRequest, ProviderAnswer, ProviderChunk
from shared.attempts import QuotaReading

API_VERSION = "2023-06-01"
DEFAULT_BASE_URL = "https://api.anthropic.com"


class AnthropicProvider(BaseProvider):
    """Asks one model at one base URL."""

    capabilities: frozenset[Capability] = frozenset({"chat", "stream", "tools", "json", "count_tokens"})
    runs_foreign_code = False

    def __init__(self, deployment: Deployment, connections: Connections, base_url: str) -> None:
        self._deployment = deployment
        self._connections = connections
        self._url = f"{base_url.rstrip('/')}/v1"
        self._headers = {
            "Content-Type": "application/json",
            "anthropic-version": API_VERSION,
            "x-api-key": deployment.api_key or "",
        }

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        answer = await self._post("messages", build_message_body(request, self._deployment), timeout_seconds)
        return read_answer(answer.document, self._deployment.model, _read_quota(answer))

    def stream(self, request: CompletionRequest) -> AsyncGenerator[ProviderChunk, None]:
        body = dump_json(build_message_body(request, self._deployment) | {"stream": True})
        opening = self._connections.open("POST", f"{self._url}/messages", self._headers, body)
        return relay_events(opening, self._begin, MessageStream().read)

    async def count_tokens(self, request: CompletionRequest, timeout_seconds: float) -> int:
        body = build_count_body(request, self._deployment)
        return read_count((await self._post("messages/count_tokens", body, timeout_seconds)).document)

    async def is_healthy(self, timeout_seconds: float) -> bool:
        return await is_somebody_there(self._connections, f"{self._url}/models", self._headers, timeout_seconds)

    async def _post(self, path: str, body: dict[str, object], timeout_seconds: float) -> HttpAnswer:
        answer = await self._connections.post_json(f"{self._url}/{path}", self._headers, body, timeout_seconds)
        _check(answer)
        return answer

    async def _begin(self, answer: OpenAnswer) -> ProviderChunk:
        """What the beginning of a stream says; some answer whole all the same, be it an error or not."""
        if answer.status == 200 and not answer.is_json:
            return ProviderChunk(quota=_read_quota(answer))
        whole = await answer.read_json()
        _check(whole)
        return as_chunk(read_answer(whole.document, self._deployment.model, _read_quota(whole)))


def create_anthropic(deployment: Deployment, connections: Connections) -> AnthropicProvider:
    return AnthropicProvider(deployment, connections, require_address(deployment, DEFAULT_BASE_URL))


def _check(answer: HttpAnswer) -> None:
    if answer.status != 200 or find_error(answer.document):
        raise map_error(answer, datetime.now(UTC))


def _read_quota(answer: HttpAnswer | OpenAnswer) -> tuple[QuotaReading, ...]:
    return read_quota(answer.headers, quota_headers.ANTHROPIC, datetime.now(UTC))
