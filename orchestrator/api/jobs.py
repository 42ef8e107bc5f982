"""The jobs API: hand in a message, ask for the job, cancel it.

The body is read by hand rather than by the framework, because a producer's JSON is doubted here as it is at the other
door, by the same code and with the same words.
"""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Query, Request, Response

from orchestrator.front_door import FrontDoor
from orchestrator.messages import Channel, parse_message
from orchestrator.results import build_view
from shared.errors import InputError, NotFoundError

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
LONGEST_WAIT_SECONDS: Final = 300.0

router = APIRouter(prefix="/v1", tags=["jobs"])


def get_front_door(request: Request) -> FrontDoor:
    """The door this process opened at its start."""
    door: FrontDoor = request.app.state.front_door
    return door


Door = Annotated[FrontDoor, Depends(get_front_door)]
Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds to wait for news of the job.")]


@router.post("/jobs", status_code=202)
async def submit_job(request: Request, response: Response, door: Door, wait: Wait = 0.0) -> dict[str, Any]:
    """Take a message in. Only `content` is required; an `id` of your own makes sending it twice harmless."""
    raw = parse_json(await read_body(request))
    message = parse_message({**build_defaults(), **raw} if isinstance(raw, dict) else raw)
    job = await door.submit(message)
    if wait:
        job = await door.wait(job.job_id, wait)
    response.headers["Location"] = f"/v1/jobs/{job.job_id}"
    if job.state.is_final:
        response.status_code = 200
    return build_view(job)


@router.get("/jobs/{job_id}")
async def get_job(job_id: str, door: Door, wait: Wait = 0.0) -> dict[str, Any]:
    """Where a job stands, at once or as soon as there is news within `wait` seconds."""
    return build_view(await door.wait(parse_job_id(job_id), wait))


@router.post("/jobs/{job_id}/cancel")
async def cancel_job(job_id: str, door: Door) -> dict[str, Any]:
    """End a job before it has an answer. One that has ended already stays as it is: `state` tells."""
    return build_view(await door.cancel(parse_job_id(job_id)))


async def read_body(request: Request) -> bytes:
    """The whole body, but never more than the bound.

    Raises:
        InputError: it is larger.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise InputError("message", "is too large", f"send at most {MAX_BODY_BYTES // 2**20} MiB")
    return bytes(body)


def parse_json(body: bytes) -> object:
    """Any JSON value.

    Raises:
        InputError: it is none, or is nested without end.
    """
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("message", "is not JSON", "send one JSON object, encoded as UTF-8") from None
    return value


def build_defaults() -> dict[str, Any]:
    """What a caller of this API need not say."""
    return {
        "id": str(uuid4()),
        "channel": Channel.API.value,
        "sender": "api",
        "timestamp": datetime.now(UTC).isoformat(),
    }


def parse_job_id(job_id: str) -> UUID:
    """
    Raises:
        NotFoundError: no job has such an id.
    """
    try:
        return UUID(job_id)
    except ValueError:
        raise NotFoundError("id", "is not a job's id", "use the id that was returned when it was submitted") from None
