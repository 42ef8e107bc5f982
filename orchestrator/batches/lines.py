"""Makes a message of each record of a file, or says why it cannot be asked. Pure.

A million lines pass through here, so a message is written as JSON at once: what all lines share is written once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json

from orchestrator.batches import templates
from orchestrator.batches.ids import build_job_id, build_message_id
from orchestrator.batches.input_files import Record
from orchestrator.batches.records import BatchOptions, NewLine, RejectedLine, Shape
from orchestrator.jobs.lifecycle import JobState
from orchestrator.messages import MESSAGE_VERSION, Channel, is_plain, read_prompt
from orchestrator.outcomes import POLITE_REPLY
from shared.errors import InputError
from shared.text import find_fault

CHAT_URL: Final = "/v1/chat/completions"
DEFAULT_COLUMN: Final = "prompt"
LONGEST_CUSTOM_ID: Final = 512
SENDER: Final = "batch"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a record asks for."""

    custom_id: str | None
    model: str
    prompt: Mapping[str, Any]
    """An OpenAI chat request."""


@dataclass(frozen=True, slots=True)
class LineMaker:
    """Makes the lines of one batch."""

    batch_id: UUID
    tenant_id: str
    shape: Shape
    options: BatchOptions
    noun: str
    """What users call a record of their file: line or row."""
    default_model: str
    """For lines that name none."""
    check_model: Callable[[str], object]
    """Raises `NotFoundError` for what is no model group."""
    timestamp: str
    """When they were taken in, in ISO's form."""
    purse: Mapping[str, str] | None = None

    def make(self, line: int, record: Record) -> NewLine | RejectedLine:
        """The message of the batch's line of that number, or what stands in for it."""
        try:
            asked = self.read(record)
        except InputError as fault:
            return self._reject(line, record, fault)
        return NewLine(line, self._write(line, asked.custom_id, {"model": asked.model, "prompt": asked.prompt}))

    def read(self, record: Record) -> Asked:
        """
        Raises:
            InputError: it cannot be asked; names the field.
        """
        if record.fault:
            raise record.fault
        asked = _READERS[self.shape](self, record.value)
        self.check_model(asked.model)
        return asked

    def _reject(self, line: int, record: Record, fault: InputError) -> RejectedLine:
        told = describe_fault(self.noun, record, fault)
        custom_id = record.value.get("custom_id") if isinstance(record.value, dict) else None
        fields = {"content": str(told)}
        body = self._write(line, custom_id if _is_custom_id(custom_id) else None, fields)
        result = {
            "job_id": build_job_id(self.batch_id, line),
            "message_id": build_message_id(self.batch_id, line),
            "tenant_id": self.tenant_id,
            "state": JobState.FAILED.value,
            "content": POLITE_REPLY,
            "error": {"type": InputError.__name__, "message": str(told), **told.as_dict()},
        }
        return RejectedLine(line, body, to_json(result).decode())

    def _write(self, line: int, custom_id: object, fields: Mapping[str, Any]) -> str:
        message = {
            "version": MESSAGE_VERSION,
            "id": build_message_id(self.batch_id, line),
            "tenant_id": self.tenant_id,
            "channel": Channel.API.value,
            "channel_metadata": {} if custom_id is None else {"custom_id": custom_id},
            "sender": SENDER,
            "timestamp": self.timestamp,
            "purse": self.purse,
            **fields,
        }
        return to_json(message).decode()


def describe_fault(noun: str, record: Record, fault: InputError) -> InputError:
    """With the place in the file, which a user looks for first."""
    return InputError(f"{noun} {record.number}, {fault.field}", fault.problem, fault.remedy)


def find_shape(record: Record) -> Shape:
    """What a file holds, by its first record."""
    value = record.value
    is_openai = isinstance(value, dict) and "body" in value and ("custom_id" in value or "url" in value)
    return Shape.OPENAI if is_openai else Shape.PROMPTS


def _read_openai(maker: LineMaker, value: Any) -> Asked:
    if not isinstance(value, dict) or not isinstance(value.get("body"), dict):
        raise InputError("body", "is no JSON object", f"write what `POST {CHAT_URL}` takes")
    if not _is_custom_id(value.get("custom_id")):
        raise InputError("custom_id", "is no text", f"write a text of at most {LONGEST_CUSTOM_ID} characters")
    if value.get("method", "POST") != "POST":
        raise InputError("method", f"is {value['method']!r}", "write POST")
    if value.get("url", CHAT_URL) != CHAT_URL:
        raise InputError("url", f"is {value['url']!r}", f"write {CHAT_URL}: batches ask for chat completions only")
    prompt = value["body"]
    model = _check(prompt, maker.options.model, f"body.{_MODEL}")
    return Asked(value["custom_id"], model, prompt)


def _read_prompt(maker: LineMaker, value: Any) -> Asked:
    fields = value if isinstance(value, dict) else {DEFAULT_COLUMN: value}
    options = maker.options
    custom_id = fields.get("custom_id", fields.get("id"))
    custom_id = None if custom_id is None else str(custom_id)[:LONGEST_CUSTOM_ID]
    model = options.model or _find_model(fields) or maker.default_model
    if "messages" in fields and options.template is None and options.column is None:
        prompt = {name: field for name, field in fields.items() if name not in ("custom_id", "id")}
        return Asked(custom_id, _check(prompt, model, _MODEL), prompt)
    text = _find_text(options, fields)
    return Asked(custom_id, model, _build_prompt(options, text))


def _find_text(options: BatchOptions, fields: Mapping[str, Any]) -> str:
    if options.template is not None:
        text: object = templates.fill(options.template, fields)
        name = "template"
    else:
        name = options.column or DEFAULT_COLUMN
        if name not in fields:
            raise InputError(name, "is missing", f"add it, or name another with --column: {', '.join(fields)}")
        text = fields[name]
    if not isinstance(text, str):
        raise InputError(name, "is no text", "write a text, or use --template")
    if not text.strip():
        raise InputError(name, "is empty", "write what shall be asked")
    if fault := find_fault(text):
        raise InputError(name, fault.problem, fault.remedy)
    return text


def _find_model(fields: Mapping[str, Any]) -> str | None:
    model = fields.get(_MODEL)
    return model if isinstance(model, str) and model else None


def _build_prompt(options: BatchOptions, text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    settings = {"temperature": options.temperature, "max_tokens": options.max_tokens}
    return {"messages": messages, **{name: value for name, value in settings.items() if value is not None}}


def _check(prompt: Mapping[str, Any], model: str | None, field: str) -> str:
    """The model it is for; every fault is named with its place in the record."""
    if is_plain(prompt) and (name := model or prompt.get(_MODEL)):
        return str(name)
    try:
        return read_prompt(prompt, model).model
    except InputError as fault:
        place = field.removesuffix(_MODEL) + fault.field
        raise InputError(place, fault.problem, fault.remedy) from None


def _is_custom_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_CUSTOM_ID


_MODEL: Final = "model"
_READERS: Mapping[Shape, Callable[[LineMaker, Any], Asked]] = {
    Shape.OPENAI: _read_openai,
    Shape.PROMPTS: _read_prompt,
}
