"""What the pool service is asked, in both directions: bodies as they come in, and as a pool elsewhere writes them."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import PydanticCustomError

from llm_pool.call import RunConfig
from llm_pool.money.budget_tracker import BudgetTracker
from llm_pool.types import (
    ChatMessage,
    CompletionRequest,
    EmbeddingRequest,
    JsonFormat,
    Purse,
    Role,
    Tool,
    ToolCall,
)
from shared.errors import InputError
from shared.text import find_fault, make_storable

_STRICT = ConfigDict(frozen=True, extra="forbid")


def _refuse_unstorable(text: str) -> str:
    fault = find_fault(text)
    if fault is not None:
        raise PydanticCustomError("unstorable_text", "{fault}", {"fault": f"it {fault.problem}"})
    return text


Text = Annotated[str, AfterValidator(_refuse_unstorable)]
"""What Postgres can keep."""


class ToolCallBody(BaseModel):
    """What an assistant wanted called."""

    model_config = _STRICT

    id: Text
    name: Text
    arguments: Text
    provider_data: Text | None = None

    def to_call(self) -> ToolCall:
        return ToolCall(self.id, self.name, self.arguments, self.provider_data)


class MessageBody(BaseModel):
    """One turn."""

    model_config = _STRICT

    role: Role
    content: Text = ""
    name: Text | None = None
    tool_calls: tuple[ToolCallBody, ...] = ()
    tool_call_id: Text | None = None

    def to_message(self) -> ChatMessage:
        calls = tuple(call.to_call() for call in self.tool_calls)
        return ChatMessage(self.role, self.content, self.name, calls, self.tool_call_id)


class ToolBody(BaseModel):
    """A function the model may ask for."""

    model_config = _STRICT

    name: Text
    description: Text = ""
    parameters: dict[str, object]
    strict: bool = False


class JsonFormatBody(BaseModel):
    """The answer is to be JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    json_schema: dict[str, object] | None = Field(default=None, alias="schema")
    name: Text = "answer"


class PurseBody(BaseModel):
    """Money that many requests share."""

    model_config = _STRICT

    name: Text
    limit_usd: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]

    def to_purse(self) -> Purse:
        return Purse(self.name, self.limit_usd)


class _RequestBody(BaseModel):
    """What every request says, and how it is to be run."""

    model_config = _STRICT

    model: Text
    tenant_id: Text | None = None
    key_id: Text | None = None
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    purse: PurseBody | None = None
    use_cache: bool | None = None
    keeps_only_fitting: bool = False
    budget_usd: Annotated[Decimal, Field(allow_inf_nan=False)] | None = None
    """What is left in the caller's own purse; the service holds it for this one request."""
    include_attempts: bool = False
    """Whether a failure should say what was tried; an answer always does."""

    def to_config(self) -> RunConfig:
        tracker = None if self.budget_usd is None else BudgetTracker(self.budget_usd)
        return RunConfig(tracker, self.use_cache, self.keeps_only_fitting)


class CompleteBody(_RequestBody):
    """What `POST /complete` takes, and `/stream`, and `/count_tokens`."""

    messages: tuple[MessageBody, ...]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop: tuple[Text, ...] = ()
    tools: tuple[ToolBody, ...] = ()
    tool_choice: Text = "auto"
    json_format: JsonFormatBody | None = None
    user: Text | None = None
    metadata: dict[Text, Text] = {}

    def to_request(self) -> CompletionRequest:
        wanted = self.json_format
        return CompletionRequest(
            model=self.model,
            messages=tuple(message.to_message() for message in self.messages),
            tenant_id=self.tenant_id,
            key_id=self.key_id,
            purse=None if self.purse is None else self.purse.to_purse(),
            timeout_seconds=self.timeout_seconds,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            top_p=self.top_p,
            stop=self.stop,
            tools=tuple(Tool(tool.name, tool.description, tool.parameters, tool.strict) for tool in self.tools),
            tool_choice=self.tool_choice,
            json_format=None if wanted is None else JsonFormat(wanted.json_schema, wanted.name),
            user=self.user,
            metadata=self.metadata,
        )


class EmbedBody(_RequestBody):
    """What `POST /embed` takes."""

    inputs: tuple[Text, ...]
    dimensions: Annotated[int, Field(ge=1)] | None = None

    def to_request(self) -> EmbeddingRequest:
        return EmbeddingRequest(
            model=self.model,
            inputs=self.inputs,
            dimensions=self.dimensions,
            tenant_id=self.tenant_id,
            key_id=self.key_id,
            purse=None if self.purse is None else self.purse.to_purse(),
            timeout_seconds=self.timeout_seconds,
        )


_COMPLETION = TypeAdapter(CompletionRequest)
_EMBEDDING = TypeAdapter(EmbeddingRequest)


def dump_request(request: CompletionRequest) -> dict[str, Any]:
    """Ready for JSON; `CompleteBody` reads it back."""
    fields: dict[str, Any] = _COMPLETION.dump_python(request, mode="json", exclude_defaults=True)
    return fields


def dump_embedding_request(request: EmbeddingRequest) -> dict[str, Any]:
    """Likewise, for `EmbedBody`."""
    fields: dict[str, Any] = _EMBEDDING.dump_python(request, mode="json", exclude_defaults=True)
    return fields


def build_run_fields(config: RunConfig, budget_usd: Decimal | None) -> dict[str, object]:
    """As a pool in another process asks: with the attempts of a failure, which the job ledger keeps."""
    fields: dict[str, object] = {"include_attempts": True}
    if config.use_cache is not None:
        fields["use_cache"] = config.use_cache
    if config.keeps_only_fitting:
        fields["keeps_only_fitting"] = True
    if budget_usd is not None:
        fields["budget_usd"] = str(budget_usd)
    return fields


def describe_fault(location: Sequence[int | str], problem: str, remedy: str) -> InputError:
    """For a body that does not have its shape."""
    field = ".".join(str(part) for part in location if part != "body") or "body"
    return InputError(make_storable(field), problem, remedy)


def read_fault(error: Mapping[str, Any], remedy: str) -> InputError:
    """From pydantic's first finding. Of what is no JSON the place is an offset in the text, which says little."""
    place = () if error["type"] == "json_invalid" else error["loc"]
    return describe_fault(place, error["msg"], remedy)
