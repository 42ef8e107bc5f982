"""How the providers write what they say: whole answers, streams in pieces, errors, vectors."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Json = dict[str, Any]
Events = list[bytes]


@dataclass(frozen=True)
class Dialect:
    """One provider's."""

    provider: str
    path: str
    """Where it is asked."""
    base_path: str
    """What of that path belongs to the base URL."""
    answer: Callable[[str, str], Json]
    """From the text and its own word for the finish reason."""
    error: Callable[[str], Json]
    """From the text for people."""
    stopped: str
    cut_by_length: str
    end_marker: str
    """Without this key of `find_marked` an answer was cut off."""
    find_marked: Callable[[Json], Json]
    event: Callable[[object], bytes]
    """One event of a stream, from its document."""
    stream_type: str
    """The content type of a stream."""
    pieces: Callable[[Sequence[str]], Events]
    """The beginning of a stream, with these pieces of text in it."""
    ending: Callable[[str], Events]
    """The rest, from its own word for the finish reason."""
    overloaded: Json
    """What comes in the middle of a stream when the provider gives up."""
    keepalive: bytes
    """What says no more than that somebody is there."""
    thoughts: Events
    """What says that the model is at work, and nothing that is handed on: one of each form that is known."""
    wrong_types: Sequence[Json]
    """Events that are JSON, and not what the dialect promises."""

    def stream(self, *texts: str, finish_reason: str | None = None) -> Events:
        """A whole one."""
        return self.pieces(texts) + self.ending(finish_reason or self.stopped)


def event_of(document: object) -> bytes:
    """A server-sent event without a name."""
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def named_event_of(document: Mapping[str, Any]) -> bytes:
    return f"event: {document.get('type')}\n".encode() + event_of(document)


def line_of(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"


def _answer_openai(content: str, finish_reason: str) -> Json:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "model-as-served",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
    }


def chunk_openai(delta: Json, finish_reason: str | None = None, **fields: object) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "model-as-served"}
    return {**head, "choices": [choice], **fields}


def _pieces_openai(texts: Sequence[str]) -> Events:
    opening = chunk_openai({"role": "assistant", "content": ""})
    return [event_of(opening), *(event_of(chunk_openai({"content": text})) for text in texts)]


def _ending_openai(finish_reason: str) -> Events:
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    counts = {**chunk_openai({}), "choices": [], "usage": usage}
    return [event_of(chunk_openai({}, finish_reason)), event_of(counts), b"data: [DONE]\n\n"]


def _answer_anthropic(content: str, stop_reason: str) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "model-as-served",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": content}],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 5},
    }


def start_anthropic() -> Json:
    usage = {"input_tokens": 11, "output_tokens": 1}
    message = {"id": "msg_1", "role": "assistant", "model": "model-as-served", "content": [], "usage": usage}
    return {"type": "message_start", "message": message}


def delta_anthropic(text: str) -> Json:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def _pieces_anthropic(texts: Sequence[str]) -> Events:
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    deltas = (delta_anthropic(text) for text in texts)
    return [named_event_of(event) for event in (start_anthropic(), block, {"type": "ping"}, *deltas)]


def _ending_anthropic(stop_reason: str) -> Events:
    end = {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {"output_tokens": 5}}
    stop = {"type": "content_block_stop", "index": 0}
    return [named_event_of(event) for event in (stop, end, {"type": "message_stop"})]


def _answer_ollama(content: str, done_reason: str) -> Json:
    return {
        "model": "model-as-served",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": content},
        "done": True,
        "done_reason": done_reason,
        "prompt_eval_count": 11,
        "eval_count": 5,
    }


def _say_ollama(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    return line_of(
        {"model": "model-as-served", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": False}
    )


OPENAI = Dialect(
    provider="openai_compatible",
    path="/v1/chat/completions",
    base_path="/v1",
    answer=_answer_openai,
    error=lambda text: {"error": {"message": text, "type": "some_error", "param": None, "code": None}},
    stopped="stop",
    cut_by_length="length",
    end_marker="finish_reason",
    find_marked=lambda answer: answer["choices"][0],
    event=event_of,
    stream_type="text/event-stream",
    pieces=_pieces_openai,
    ending=_ending_openai,
    overloaded={"error": {"message": "as people read it", "type": "server_error", "code": None}},
    keepalive=b": keepalive\n\n",
    thoughts=[event_of(chunk_openai({"content": None, name: "hm"})) for name in ("reasoning_content", "reasoning")],
    wrong_types=(
        {"choices": "none"},
        {"choices": ["none"]},
        chunk_openai({"content": 7}),
        chunk_openai({"content": ["a"]}),
        chunk_openai({"tool_calls": [7]}),
        chunk_openai({"tool_calls": [{"index": "first"}]}),
        chunk_openai({}, "unheard of"),
        {"choices": [{"delta": "text"}]},
    ),
)
GROQ = replace(OPENAI, provider="groq")
TOGETHER = replace(OPENAI, provider="together")
ANTHROPIC = Dialect(
    provider="anthropic",
    path="/v1/messages",
    base_path="",
    answer=_answer_anthropic,
    error=lambda text: {"type": "error", "error": {"type": "some_error", "message": text}, "request_id": "req_1"},
    stopped="end_turn",
    cut_by_length="max_tokens",
    end_marker="stop_reason",
    find_marked=lambda answer: answer,
    event=named_event_of,
    stream_type="text/event-stream",
    pieces=_pieces_anthropic,
    ending=_ending_anthropic,
    overloaded={"type": "error", "error": {"type": "overloaded_error", "message": "as people read it"}},
    keepalive=named_event_of({"type": "ping"}),
    thoughts=[
        named_event_of(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}
        )
    ],
    wrong_types=(
        {"type": "content_block_delta", "index": 0, "delta": "text"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 7}},
        {"type": "content_block_delta", "index": "0", "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_start", "index": 0, "content_block": [7]},
        {"type": "message_delta", "delta": {"stop_reason": 7}},
        {"type": "message_stop"},
    ),
)
OLLAMA = Dialect(
    provider="ollama",
    path="/api/chat",
    base_path="",
    answer=_answer_ollama,
    error=lambda text: {"error": text},
    stopped="stop",
    cut_by_length="length",
    end_marker="done",
    find_marked=lambda answer: answer,
    event=line_of,
    stream_type="application/x-ndjson",
    pieces=lambda texts: [_say_ollama(text) for text in texts],
    ending=lambda done_reason: [line_of(_answer_ollama("", done_reason))],
    overloaded={"error": "as people read it"},
    keepalive=_say_ollama(""),
    thoughts=[line_of({"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False})],
    wrong_types=({"message": "text"}, {"message": {"role": "assistant", "content": 7}}),
)
DIALECTS = (OPENAI, ANTHROPIC, OLLAMA)
