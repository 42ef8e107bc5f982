"""Where a URL leads, and the head of a request there."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from shared.errors import LLMConnectionError

PORTS: Final = {"http": 80, "https": 443}
SAFE: Final = "/?%:@!$&'()*+,;=~-._"
"""Stands in a path or a query as it is; what was escaped before stays escaped once."""
USUAL_LINES: Final = "Accept: */*\r\nAccept-Encoding: gzip\r\n"
AGENT_LINE: Final = "User-Agent: llmyard\r\n"


@dataclass(frozen=True, slots=True, eq=False)
class Address:
    """A URL, taken apart; one is kept for each, and known by its identity."""

    place: str
    """Where to connect, for people and as a key."""
    host: str
    port: int
    is_secure: bool
    target: str
    """Path and query, escaped."""
    host_shown: str
    """As the header Host has it."""
    account: str | None
    """The header that an account in the URL asks for, with its end."""


@lru_cache(maxsize=1024)
def read_address(url: str) -> Address:
    """
    Raises:
        LLMConnectionError: nobody can be reached there.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS[parts.scheme]
        host = _to_ascii(parts.hostname or "")
    except (ValueError, KeyError) as error:
        raise _refuse_url(url, repr(error)) from error
    if not host:
        raise _refuse_url(url, "it names no host")
    shown = f"[{host}]" if ":" in host else host
    place = f"{parts.scheme}://{shown}:{port}"
    host_shown = shown if port == PORTS[parts.scheme] else f"{shown}:{port}"
    target = quote(parts.path or "/", SAFE) + (f"?{quote(parts.query, SAFE)}" if parts.query else "")
    return Address(place, host, port, parts.scheme == "https", target, host_shown, _read_account(parts))


def _read_account(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Authorization: Basic {b64encode(account.encode()).decode()}\r\n"


def _to_ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode()


def _refuse_url(url: str, problem: str) -> LLMConnectionError:
    """Of what may be an account in it, nothing is told."""
    return refuse(f"{url.rpartition('@')[2]!r} cannot be asked: {problem}")


def refuse(problem: str) -> LLMConnectionError:
    """The error of a question that was not sent."""
    fault = LLMConnectionError(problem)
    fault.was_sent = False
    return fault


def build_request(method: str, address: Address, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """A whole request, as it goes over the wire (RFC 9112).

    Raises:
        LLMConnectionError: a header holds the end of a line, behind which it could say anything.
    """
    head = _build_head(method, address, tuple(headers.items()))
    return b"%b\r\n" % head if body is None else b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


@lru_cache(maxsize=1024)
def _build_head(method: str, address: Address, headers: tuple[tuple[str, str], ...]) -> bytes:
    """All but how long the body is, which alone changes from call to call."""
    said = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if said.count("\n") != len(headers) or said.count("\r") != len(headers):
        raise refuse(f"a header for {address.place} holds the end of a line")
    names = {name for name, _ in headers}
    usual = USUAL_LINES if address.account is None or "Authorization" in names else USUAL_LINES + address.account
    agent = "" if "user-agent" in names else AGENT_LINE
    return f"{method} {address.target} HTTP/1.1\r\nHost: {address.host_shown}\r\n{usual}{agent}{said}".encode()
