"""OpenTelemetry's names for generative AI, in one place because they are still moving, and our own beside them.

As of the conventions' own repository, open-telemetry/semantic-conventions-genai, status Development.
"""

from typing import Final

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
OUTPUT_TYPE: Final = "gen_ai.output.type"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_CREATION_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
EMBEDDING_DIMENSION: Final = "gen_ai.embeddings.dimension.count"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
ERROR_TYPE: Final = "error.type"

CHAT: Final = "chat"
EMBEDDINGS: Final = "embeddings"

MODEL_GROUP: Final = "llmyard.model_group"
DEPLOYMENT: Final = "llmyard.deployment"
REQUEST_ID: Final = "llmyard.request_id"
TENANT_ID: Final = "llmyard.tenant_id"
KEY_ID: Final = "llmyard.key_id"
ATTEMPTS: Final = "llmyard.attempts"
CACHE: Final = "llmyard.cache"
COST_USD: Final = "llmyard.cost_usd"
RETRY_AFTER_SECONDS: Final = "llmyard.retry_after_seconds"

PROVIDER_NAMES: Final = {"gemini": "gcp.gemini"}
"""Where the conventions call a provider otherwise than we do."""
