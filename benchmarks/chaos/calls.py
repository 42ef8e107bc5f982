"""What the model server saw: one value a call, and the append-only file it is read from."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

PROMPT_USD_PER_MILLION: Final = 1
COMPLETION_USD_PER_MILLION: Final = 2
COMPLETION_TOKENS: Final = 50


@dataclass(frozen=True, slots=True)
class Call:
    """One request that reached the model server."""

    number: int
    """In the order of arrival, from 1."""
    question: str
    """The last message's text; in this bench also the message's id."""
    arrived_at: float
    """Seconds since 1970, by the bench's clock, as all moments here."""
    began_at: float | None = None
    """When the first byte of an answer left."""
    ended_at: float | None = None
    ending: str | None = None
    """`answered` with status 200, `refused` with another, `hung_up` when the caller closed first, `cut` by us."""
    status: int | None = None
    bill_usd: Decimal = Decimal(0)
    """Whole once answered; the prompt alone if the caller hung up while it was being answered."""

    @property
    def is_open(self) -> bool:
        return self.ended_at is None

    @property
    def is_billed(self) -> bool:
        return self.bill_usd > 0


def count_prompt_tokens(question: str) -> int:
    return 100 + len(question)


def build_bill(question: str, completion_tokens: int = COMPLETION_TOKENS) -> Decimal:
    """In USD, by the prices that also stand in the catalogue of the workers."""
    prompt = count_prompt_tokens(question) * PROMPT_USD_PER_MILLION
    return Decimal(prompt + completion_tokens * COMPLETION_USD_PER_MILLION) / 1_000_000


class CallLog:
    """Reads the server's file as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._calls: dict[int, Call] = {}

    def calls(self, prefix: str = "") -> list[Call]:
        """Of the questions that begin with `prefix`, in the order of arrival."""
        self._read_on()
        return [call for call in self._calls.values() if call.question.startswith(prefix)]

    def count(self, prefix: str = "", *, ending: str | None = None) -> int:
        """Calls that arrived, or that ended this way."""
        return sum(ending is None or call.ending == ending for call in self.calls(prefix))

    def open(self, prefix: str = "") -> list[Call]:
        return [call for call in self.calls(prefix) if call.is_open]

    def _read_on(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            *lines, unfinished = file.read().split(b"\n")
            self._offset = file.tell() - len(unfinished)
        apply_lines(self._calls, (json.loads(line) for line in lines))


def apply_lines(calls: dict[int, Call], lines: Iterable[dict[str, Any]]) -> None:
    """Bring the calls up to the lines of the file, each of which tells one event of one call."""
    for line in lines:
        number, at = line["call"], line["at"]
        match line["event"]:
            case "arrived":
                calls[number] = Call(number, line["question"], at)
            case "began":
                calls[number] = replace(calls[number], began_at=at)
            case ending:
                bill = Decimal(line["bill_usd"])
                calls[number] = replace(calls[number], ended_at=at, ending=ending, status=line["status"], bill_usd=bill)
