"""What is left of the providers' quotas, and who answers, as the workers last told."""

from typing import Any

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import TypeAdapter

from llm_pool.pool_status import PoolStatus
from llm_pool.stores.statuses.base import StatusStoreUnavailableError
from orchestrator.wiring import FleetView
from shared.errors import InputError

log = structlog.get_logger()

router = APIRouter(prefix="/v1", tags=["quota"])

_STATUS = TypeAdapter(PoolStatus)


@router.get("/quota")
async def get_quota(request: Request) -> Response:
    """Per deployment, and the deployment that answered last for each model group."""
    view: FleetView = request.app.state.fleet_view
    try:
        status = await view.statuses.read()
    except StatusStoreUnavailableError as error:
        log.warning("quota_not_read", error=repr(error.__cause__))
        problem = InputError("redis", "cannot be reached", "ask again in a moment")
        return JSONResponse({"error": problem.as_dict()}, status_code=503, headers={"Retry-After": "1"})
    return JSONResponse(build_quota_view(status))


def build_quota_view(status: PoolStatus) -> dict[str, Any]:
    """JSON, here and in `llmyard status --json`."""
    view: dict[str, Any] = _STATUS.dump_python(status, mode="json")
    return {"current_provider": status.current_provider, **view}
