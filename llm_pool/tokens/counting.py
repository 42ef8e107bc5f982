"""How many tokens a text is, before anybody is asked: what permits and budgets reserve.

Most models' tokenizers are not to be had, so this estimates, and leans high: a reservation that is too small lets more
through than a quota allows, one that is too large is corrected when the answer says what was used. `script_weights`
weighs the characters; what answers report corrects the weight for each model and script (see `Calibration`). A group
of several models is estimated by the one that makes most of a text.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from llm_pool.call import TokenEstimate
from llm_pool.tokens.script_weights import Weight, weigh
from llm_pool.tokens.vocabularies import TokenVocabularies
from llm_pool.types import CompletionRequest, EmbeddingRequest

REQUEST_TOKENS = 16
"""What chat templates put around the whole; 3 to 20 are known."""
MESSAGE_TOKENS = 4
"""And around each message."""
TOOLS_TOKENS = 400
"""What some providers tell a model about tools in general; Anthropic documents 313 to 346."""

SURE_AFTER = 32
"""Observations of one model in a group, after which only one in so many of the next is weighed, to save time."""
THEN_ONE_IN = 8
_TELLING_TOKENS = 50
"""Of shorter texts what stands around them is too large a part to learn from."""
_UNKNOWN_FACTOR = 1.1
_SMALLEST_FACTOR, _LARGEST_FACTOR = 0.1, 4.0
_MEAN_GAIN, _DEVIATION_GAIN = 1 / 8, 1 / 4
_LEAN, _LEAST_LEAN = 4.0, 0.05


class Calibration:
    """What one model makes of one script: the mean of true over weighed, and how far it strays, as TCP times a round
    trip, so that one prompt in fifty is longer than estimated, and by a tenth at most. Typical ones are estimated 5 %
    (one kind of text) to 25 % (code, prose and tables in turn) too long.
    """

    def __init__(self) -> None:
        self._mean = _UNKNOWN_FACTOR
        self._deviation = 0.0
        self._is_new = True

    @property
    def factor(self) -> float:
        """What a weight is to be multiplied with."""
        if self._is_new:
            return _UNKNOWN_FACTOR
        leaning = self._mean + max(_LEAN * self._deviation, _LEAST_LEAN * self._mean)
        return min(max(leaning, _SMALLEST_FACTOR), _LARGEST_FACTOR)

    def observe(self, ratio: float) -> None:
        """The first observation alone lowers nothing: the factor comes down as others agree with it."""
        error = ratio - self._mean
        if self._is_new:
            self._mean, self._deviation, self._is_new = ratio, abs(error) / _LEAN, False
            return
        self._deviation += _DEVIATION_GAIN * (abs(error) - self._deviation)
        self._mean += _MEAN_GAIN * error


_UNCALIBRATED = (Calibration(),)


class TokenCounter:
    """Of one pool; what it learns is in memory and learnt again in a few calls."""

    def __init__(self, tiktoken_directory: Path | None = None) -> None:
        """`tiktoken_directory` holds tiktoken's data, if anything does; it is never fetched."""
        self._vocabularies = TokenVocabularies(tiktoken_directory)
        self._by_model: dict[tuple[str, str], Calibration] = {}
        """By the provider's name and the script."""
        self._by_group: dict[tuple[str, str], tuple[Calibration, ...]] = {}
        """Of the models that answered for a group so far."""
        self._seen: dict[tuple[str, str], int] = {}

    def count(self, text: str, model: str) -> int:
        """`model` is a provider's name for one, or a model group's."""
        exact = self.find_exact(text, model)
        if exact is not None:
            return exact
        weight = weigh(text)
        known = self._by_model.get((model, weight.script))
        return math.ceil(self._correct(weight, model) if known is None else weight.tokens * known.factor)

    def find_exact(self, text: str, model: str) -> int | None:
        """None where it can only be estimated."""
        return self._vocabularies.find_count(text, model)

    def count_prompt(self, request: CompletionRequest, model: str) -> int:
        """As `model`, a provider's name for one, would count it."""
        exact = self.find_exact("\n".join(_list_texts(request)), model)
        if exact is None:
            return self.estimate(request).prompt_tokens
        return exact + MESSAGE_TOKENS * len(request.messages)

    def estimate(self, request: CompletionRequest | EmbeddingRequest) -> TokenEstimate:
        """For a reservation; it takes some ten microseconds, so that each request can have one."""
        weighed = self._correct(_weigh_request(request), request.model)
        if isinstance(request, EmbeddingRequest):
            return TokenEstimate(math.ceil(weighed) + MESSAGE_TOKENS * len(request.inputs), 0)
        around = REQUEST_TOKENS + MESSAGE_TOKENS * len(request.messages) + (TOOLS_TOKENS if request.tools else 0)
        return TokenEstimate(math.ceil(weighed) + around, request.max_tokens)

    def observe(self, request: CompletionRequest | EmbeddingRequest, prompt_tokens: int, model: str) -> None:
        """An answer of `model`, by the provider's name for it, said how many tokens its prompt was."""
        pair = (request.model, model)
        seen = self._seen[pair] = self._seen.get(pair, 0) + 1
        if seen > SURE_AFTER and seen % THEN_ONE_IN:
            return
        weight = _weigh_request(request)
        if weight.tokens < _TELLING_TOKENS:
            return
        pieces = len(request.inputs if isinstance(request, EmbeddingRequest) else request.messages)
        text_tokens = max(prompt_tokens - MESSAGE_TOKENS * pieces, 0)
        calibration = self._by_model.setdefault((model, weight.script), Calibration())
        calibration.observe(text_tokens / weight.tokens)
        known = self._by_group.get((request.model, weight.script), ())
        if calibration not in known:
            self._by_group[request.model, weight.script] = (*known, calibration)

    def _correct(self, weight: Weight, group: str) -> float:
        known = self._by_group.get((group, weight.script), _UNCALIBRATED)
        return weight.tokens * max([calibration.factor for calibration in known])


def _weigh_request(request: CompletionRequest | EmbeddingRequest) -> Weight:
    if isinstance(request, EmbeddingRequest):
        return weigh("\n".join(request.inputs))
    return weigh("\n".join(_list_texts(request)))


def _list_texts(request: CompletionRequest) -> Iterator[str]:
    """All that the model will read."""
    for message in request.messages:
        yield message.content
        if message.name:
            yield message.name
        for call in message.tool_calls:
            yield f"{call.id} {call.name} {call.arguments}"
    for tool in request.tools:
        yield f"{tool.name} {tool.description} {json.dumps(tool.parameters, default=dict)}"
    if request.json_format is not None and request.json_format.schema is not None:
        yield json.dumps(request.json_format.schema, default=dict)
