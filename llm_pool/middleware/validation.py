"""Request ring: a request that no provider could take is refused here, with the field to mend."""

from llm_pool.call import Call, RequestHandler
from llm_pool.types import CompletionRequest, CompletionResponse
from shared.errors import InputError
from shared.text import find_fault


async def refuse_unusable(call: Call, proceed: RequestHandler) -> CompletionResponse:
    check_request(call.request)
    return await proceed(call)


def check_request(request: CompletionRequest) -> None:
    """
    Raises:
        InputError: naming the field, what is wrong with it, and what to do.
    """
    if not request.messages:
        raise InputError("messages", "there is none", "send at least one message")
    texts = {"tenant_id": request.tenant_id or ""}
    texts |= {f"messages.{index}.content": message.content for index, message in enumerate(request.messages)}
    for field, text in texts.items():
        fault = find_fault(text)
        if fault is not None:
            raise InputError(field, f"it {fault.problem}", "remove it")
