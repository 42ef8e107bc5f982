"""Failed requests over HTTP: what is parked and why, replayed or discarded by hand."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict

from llm_pool.client.failed_requests import State
from orchestrator.failed_requests.desk import MAX_REASON_CHARACTERS, FailedRequestDesk, parse_request_id
from orchestrator.failed_requests.records import AnyOperation, Wanted
from orchestrator.failed_requests.views import (
    build_details_view,
    build_page_view,
    build_record_view,
    build_stats_view,
)
from shared.errors import InputError
from shared.text import find_fault

router = APIRouter(prefix="/v1/failed-requests", tags=["failed requests"])


def get_desk(request: Request) -> FailedRequestDesk:
    """On the database this process opened at its start."""
    return FailedRequestDesk(request.app.state.database)


Desk = Annotated[FailedRequestDesk, Depends(get_desk)]


def _require_storable(text: str) -> str:
    """What the database cannot even be asked for."""
    if fault := find_fault(text):
        raise ValueError(f"{fault.problem}; {fault.remedy}")
    return text


Text = Annotated[str, AfterValidator(_require_storable)]


class ListQuery(BaseModel):
    """Which page of what."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    tenant_id: Text | None = None
    model: Text | None = None
    operation: AnyOperation | None = None
    after: str | None = None
    """`next` of the page before."""
    limit: int = 50


class DiscardBody(BaseModel):
    """May be left out."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = None


class ReplayBody(BaseModel):
    """Of one tenant, or of all."""

    model_config = ConfigDict(extra="forbid")

    tenant_id: Text | None = None
    all: bool = False
    limit: int = 1000


@router.get("")
async def list_failed_requests(desk: Desk, query: Annotated[ListQuery, Query()]) -> dict[str, Any]:
    """The newest first."""
    wanted = Wanted(query.state, query.tenant_id, query.model, query.operation)
    before = None if query.after is None else parse_request_id(query.after, field="after")
    return build_page_view(await desk.list_some(wanted, before=before, limit=_bound(query.limit, 500)))


@router.get("/stats")
async def get_stats(desk: Desk) -> dict[str, Any]:
    """By state and age."""
    return build_stats_view(await desk.read_stats())


@router.post("/replay")
async def replay_many(desk: Desk, body: ReplayBody) -> dict[str, Any]:
    """Send back what one tenant, or everybody, has parked, up to `limit`; `has_more` tells whether to ask again."""
    if body.all == (body.tenant_id is not None):
        raise InputError("tenant_id", "and all exclude each other", 'send either {"tenant_id": …} or {"all": true}')
    replayed = await desk.replay_many(body.tenant_id, limit=_bound(body.limit, 10_000))
    return {"replayed": replayed.count, "has_more": replayed.has_more}


@router.get("/{request_id}")
async def show_failed_request(request_id: str, desk: Desk) -> dict[str, Any]:
    """With what was asked, and everything that was tried."""
    return build_details_view(*await desk.show(parse_request_id(request_id)))


@router.post("/{request_id}/replay")
async def replay_failed_request(request_id: str, desk: Desk) -> dict[str, Any]:
    """Send it back now, due or not; twice is as good as once."""
    return build_record_view(await desk.replay(parse_request_id(request_id)))


@router.post("/{request_id}/discard")
async def discard_failed_request(request_id: str, desk: Desk, body: DiscardBody | None = None) -> dict[str, Any]:
    """End it without an answer, for good; HTTP 409 where it has one, or is about to."""
    reason = None if body is None else body.reason
    if reason and len(reason) > MAX_REASON_CHARACTERS:
        raise InputError("reason", "is too long", f"send at most {MAX_REASON_CHARACTERS} characters")
    return build_record_view(await desk.discard(parse_request_id(request_id), reason))


def _bound(limit: int, most: int) -> int:
    if not 1 <= limit <= most:
        raise InputError("limit", f"is {limit}", f"send 1 to {most}")
    return limit
