"""LiteLLM configurations, written down and read."""

from pathlib import Path

from llm_pool.catalog import Catalog
from llm_pool.catalogs.catalog_file import load_catalog


def load_litellm(tmp_path: Path, text: str, **variables: str) -> Catalog:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_catalog(path, variables.get)


def load_models(tmp_path: Path, *entries: str, settings: str = "") -> Catalog:
    lines = "\n".join(f"  - {entry}" for entry in entries)
    return load_litellm(tmp_path, f"model_list:\n{lines}\n{settings}", OPENAI_API_KEY="oa")


def write_model(name: str, called: str = "gpt-4o", **params: object) -> str:
    further = "".join(f", {key}: {value}" for key, value in params.items())
    return f"{{model_name: {name}, litellm_params: {{model: {called}, api_key: k{further}}}}}"
