"""The chat-completions dialect of OpenAI, which many speak: `presets` names them.

Options of its deployments are fields of the request body, sent as they are.
"""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from llm_pool.catalog import Deployment
from llm_pool.providers.base import BaseProvider, as_chunk, is_somebody_there, relay_events, require_address
from llm_pool.providers.http import Connections, HttpAnswer, OpenAnswer, dump_json
from llm_pool.providers.openai_answers import ChatStream, read_answer, read_vectors
from llm_pool.providers.openai_bodies import build_chat_body, build_embedding_body, build_stream_body
from llm_pool.providers.openai_errors import find_error, map_error
from llm_pool.providers.presets import PRESETS, Preset
from llm_pool.providers.quota_headers import read_quota
from llm_pool.types import CompletionRequest, EmbeddingAnswer, EmbeddingRequest, ProviderAnswer, ProviderChunk
from shared.attempts import QuotaReading


class OpenAICompatibleProvider(BaseProvider):
    """Asks one model at one base URL."""

    runs_foreign_code = False

    def __init__(self, deployment: Deployment, connections: Connections, base_url: str, preset: Preset) -> None:
        self.capabilities = preset.capabilities
        self._deployment = deployment
        self._connections = connections
        self._base_url = base_url.rstrip("/")
        self._chat_url = f"{self._base_url}/chat/completions"
        self._preset = preset
        self._headers = {"Content-Type": "application/json"}
        if deployment.api_key is not None:
            self._headers["Authorization"] = f"Bearer {deployment.api_key}"

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        body = build_chat_body(request, self._deployment, self._preset)
        answer = await self._connections.post_json(self._chat_url, self._headers, body, timeout_seconds)
        self._check(answer)
        return read_answer(answer.document, self._deployment.model, self._read_quota(answer))

    def stream(self, request: CompletionRequest) -> AsyncGenerator[ProviderChunk, None]:
        body = dump_json(build_stream_body(request, self._deployment, self._preset))
        opening = self._connections.open("POST", self._chat_url, self._headers, body)
        return relay_events(opening, self._begin, ChatStream().read)

    async def embed(self, request: EmbeddingRequest, timeout_seconds: float) -> EmbeddingAnswer:
        if "embed" not in self.capabilities:
            return await super().embed(request, timeout_seconds)
        body = build_embedding_body(request, self._deployment, self._preset)
        url = f"{self._base_url}/embeddings"
        answer = await self._connections.post_json(url, self._headers, body, timeout_seconds)
        self._check(answer)
        return read_vectors(answer.document, self._deployment.model, len(request.inputs), self._read_quota(answer))

    async def is_healthy(self, timeout_seconds: float) -> bool:
        return await is_somebody_there(self._connections, f"{self._base_url}/models", self._headers, timeout_seconds)

    async def _begin(self, answer: OpenAnswer) -> ProviderChunk:
        """What the beginning of a stream says; some answer whole all the same, be it an error or not."""
        if answer.status == 200 and not answer.is_json:
            return ProviderChunk(quota=self._read_quota(answer))
        whole = await answer.read_json()
        self._check(whole)
        return as_chunk(read_answer(whole.document, self._deployment.model, self._read_quota(whole)))

    def _check(self, answer: HttpAnswer) -> None:
        if answer.status != 200 or find_error(answer.document):
            raise map_error(answer, self._preset.quota, datetime.now(UTC))

    def _read_quota(self, answer: HttpAnswer | OpenAnswer) -> tuple[QuotaReading, ...]:
        return read_quota(answer.headers, self._preset.quota, datetime.now(UTC))


def create_openai_compatible(deployment: Deployment, connections: Connections) -> OpenAICompatibleProvider:
    preset = PRESETS[deployment.provider]
    base_url = require_address(deployment, preset.base_url, needs_key=preset.needs_key)
    return OpenAICompatibleProvider(deployment, connections, base_url, preset)
