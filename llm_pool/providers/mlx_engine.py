"""An MLX model on its own thread: loading it, and its tokens one by one. The only file that imports mlx-lm."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import mlx_lm
from jinja2 import TemplateError
from mlx_lm.sample_utils import make_sampler

from llm_pool.providers.failures import shorten
from llm_pool.providers.one_prompt import build_prompt
from llm_pool.providers.stop_texts import StopTexts
from llm_pool.types import ChatMessage, CompletionRequest, ProviderChunk
from shared.attempts import Usage
from shared.errors import (
    LLMContextTooLongError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
)


class _StoppedError(Exception):
    """Nobody waits for the answer any more."""


class MlxEngine:
    """See `mlx.Engine`."""

    def __init__(self, model: str, adapter_path: Path | None) -> None:
        """
        Raises:
            LLMModelNotFoundError: it cannot be loaded.
        """
        try:
            loaded: Any = mlx_lm.load(model, adapter_path=str(adapter_path) if adapter_path else None)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise LLMModelNotFoundError(shorten(f"mlx-lm cannot load '{model}': {error}")) from error
        self._model, self._tokenizer = loaded
        # What it was made for; some models do not say.
        longest: int | None = getattr(getattr(self._model, "args", None), "max_position_embeddings", None)
        self._longest_tokens = longest

    def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        return len(self._encode(messages))

    def generate(
        self, request: CompletionRequest, max_tokens: int, temperature: float, top_p: float, stop: threading.Event
    ) -> Iterator[ProviderChunk]:
        """Ends without a finish reason once `stop` is set.

        Raises:
            LLMContextTooLongError: the prompt leaves no room for an answer.
            LLMOverloadedError: mlx failed, as it does when the memory is full.
        """
        prompt = self._encode(request.messages)
        sampler = make_sampler(temp=temperature, top_p=top_p)
        try:
            yield from self._generate(
                prompt, self._fit(len(prompt), max_tokens), sampler, StopTexts(request.stop), stop
            )
        except _StoppedError:
            return
        except (RuntimeError, ValueError) as error:
            raise LLMOverloadedError(shorten(f"mlx failed: {error}")) from error

    def _generate(
        self, prompt: list[int], max_tokens: int, sampler: object, stop_texts: StopTexts, stop: threading.Event
    ) -> Iterator[ProviderChunk]:
        def check(*_: int) -> None:
            if stop.is_set():
                raise _StoppedError

        given: dict[str, Any] = {"max_tokens": max_tokens, "sampler": sampler, "prompt_progress_callback": check}
        with closing(mlx_lm.stream_generate(self._model, self._tokenizer, prompt, **given)) as responses:
            for response in responses:
                check()
                delta = stop_texts.add(response.text)
                if response.finish_reason is None and not stop_texts.was_met:
                    yield ProviderChunk(delta)
                    continue
                is_cut = response.finish_reason == "length" and not stop_texts.was_met
                usage = Usage(response.prompt_tokens, response.generation_tokens)
                yield ProviderChunk(
                    delta + stop_texts.flush(), finish_reason="length" if is_cut else "stop", usage=usage
                )
                return

    def _encode(self, messages: Sequence[ChatMessage]) -> list[int]:
        if not self._tokenizer.has_chat_template:
            return list(self._tokenizer.encode(build_prompt(messages)))
        told = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return list(self._tokenizer.apply_chat_template(told, add_generation_prompt=True))
        except TemplateError as error:  # some models know no system, or want the speakers to take turns
            raise LLMInvalidRequestError(shorten(f"the model's template refuses these messages: {error}")) from error

    def _fit(self, prompt_tokens: int, max_tokens: int) -> int:
        if self._longest_tokens is None:
            return max_tokens
        room = self._longest_tokens - prompt_tokens
        if room < 1:
            raise LLMContextTooLongError(
                f"the prompt has {prompt_tokens} tokens, and the model was made for {self._longest_tokens}"
            )
        return min(max_tokens, room)
