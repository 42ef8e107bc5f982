"""What Prometheus asks for: our own numbers, or with a shared directory those of all processes of this machine."""

import asyncio

from fastapi import APIRouter, Request, Response

from llm_pool.status.metrics import Metrics

router = APIRouter(tags=["metrics"])


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """In Prometheus' text form."""
    found: Metrics = request.app.state.metrics
    # Many processes mean many files to read.
    exposition = await asyncio.to_thread(found.expose, request.headers.get("Accept", ""))
    return Response(exposition.body, headers={"Content-Type": exposition.content_type})
