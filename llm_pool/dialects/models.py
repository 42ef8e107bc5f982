"""The list of models. OpenAI and Anthropic keep theirs at the same address; the header of the latter tells who asks."""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from llm_pool.catalog import Catalog
from llm_pool.dialects import anthropic_answers, openai_answers
from llm_pool.dialects.connection import build_route_class

ANTHROPIC_HEADER = "anthropic-version"


def build_routes(catalog: Catalog) -> APIRouter:
    """The models of this service are its model groups."""
    router = APIRouter(prefix="/v1", route_class=build_route_class(openai_answers.refuse))

    @router.get("/models")
    async def list_models(request: Request) -> JSONResponse:
        return JSONResponse(_list(request, catalog.group_names))

    @router.get("/models/{name:path}")
    async def get_model(name: str, request: Request) -> JSONResponse:
        catalog.get_group(name)
        return JSONResponse(_describe(request, name))

    return router


def _list(request: Request, names: Sequence[str]) -> dict[str, object]:
    data = [_describe(request, name) for name in names]
    if ANTHROPIC_HEADER not in request.headers:
        return {"object": "list", "data": data}
    return {"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}


def _describe(request: Request, name: str) -> dict[str, object]:
    if ANTHROPIC_HEADER in request.headers:
        return anthropic_answers.build_model(name)
    return openai_answers.build_model(name)
