"""Estimates that reservations can rest on, exact counts where the data is at hand, and nobody outside asked for any."""

import base64
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from llm_pool.catalog import ModelGroup
from llm_pool.pool import Pool
from llm_pool.tokens.counting import MESSAGE_TOKENS, REQUEST_TOKENS, SURE_AFTER, TOOLS_TOKENS, TokenCounter
from llm_pool.tokens.script_weights import PLAIN, SAMPLED_CHARACTERS, weigh
from llm_pool.types import ChatMessage, CompletionRequest, EmbeddingRequest, JsonFormat, Tool, ToolCall
from tests.fakes.scripted_provider import Script, build_catalog, build_registry, deploy
from tests.fakes.token_samples import SAMPLES, Sample

BY_NAME = {sample.name: sample for sample in SAMPLES}
ROOT = Path(__file__).parents[3]
LONG_ENGLISH = BY_NAME["english"].text * 3


def ask(text: str = LONG_ENGLISH, model: str = "fast") -> CompletionRequest:
    return CompletionRequest(model, (ChatMessage("user", text),))


def estimate_text(counter: TokenCounter, text: str = LONG_ENGLISH, model: str = "fast") -> int:
    return counter.estimate(ask(text, model)).prompt_tokens - REQUEST_TOKENS - MESSAGE_TOKENS


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_reservation_before_anything_is_known_is_an_upper_bound_and_not_a_wild_one(sample: Sample) -> None:
    estimate = estimate_text(TokenCounter(), sample.text)
    assert 0.98 * sample.largest <= estimate <= 1.9 * sample.largest


def test_four_characters_a_token_would_be_off_by_script_and_the_estimate_is_not() -> None:
    by_length = [len(BY_NAME[name].text) / 4 / BY_NAME[name].largest for name in ("english", "json schema", "chinese")]
    ours = [weigh(BY_NAME[name].text).tokens / BY_NAME[name].largest for name in ("english", "json schema", "chinese")]
    assert max(by_length) / min(by_length) > 5
    assert max(ours) / min(ours) < 1.3


@given(st.text(st.characters(), max_size=300))
@example("\ud83d")
def test_any_text_has_a_weight(text: str) -> None:
    weight = weigh(text)
    assert (weight.tokens > 0) is bool(text)


@pytest.mark.parametrize("name", ["english", "chinese", "russian", "csharp"])
def test_a_long_text_weighs_what_its_parts_do(name: str) -> None:
    part = BY_NAME[name].text + "\n"
    times = 5 * SAMPLED_CHARACTERS // len(part)
    assert weigh(part * times).tokens == pytest.approx(times * weigh(part).tokens, rel=0.05)


def test_a_long_text_of_several_kinds_is_weighed_in_all_its_places() -> None:
    kinds = [BY_NAME[name].text * 200 for name in ("english", "chinese", "russian")]
    apart = sum(weigh(kind).tokens for kind in kinds)
    assert weigh("".join(kinds)).tokens == pytest.approx(apart, rel=0.25)


def test_an_estimate_takes_microseconds_however_long_the_prompt() -> None:
    counter, request = TokenCounter(), ask(LONG_ENGLISH * 1000)
    started = time.process_time()
    for _ in range(100):
        counter.estimate(request)
    assert (time.process_time() - started) / 100 < 0.002


def test_everything_the_model_reads_is_in_the_estimate() -> None:
    counter, request = TokenCounter(), ask("short")
    call = ToolCall("call-1", "find_order", '{"number": 12345}')
    grown = [
        replace(request, messages=(*request.messages, ChatMessage("user", "more to read"))),
        replace(request, messages=(ChatMessage("user", "short", name="somebody else"),)),
        replace(request, messages=(ChatMessage("user", "short", tool_calls=(call,)),)),
        replace(request, json_format=JsonFormat({"type": "object", "properties": {"a": {}}})),
    ]
    before = counter.estimate(request).prompt_tokens
    assert all(counter.estimate(each).prompt_tokens >= before + 3 for each in grown)
    tools = (Tool("find_order", "Finds an order by its number.", {"type": "object"}),)
    assert counter.estimate(replace(request, tools=tools)).prompt_tokens > before + TOOLS_TOKENS + 5


def test_the_answers_bound_is_the_requests() -> None:
    counter = TokenCounter()
    assert counter.estimate(ask()).max_completion_tokens is None
    assert counter.estimate(replace(ask(), max_tokens=77)).max_completion_tokens == 77


def test_vectors_are_no_completion_tokens() -> None:
    estimate = TokenCounter().estimate(EmbeddingRequest("embedding", (LONG_ENGLISH, LONG_ENGLISH)))
    assert estimate.max_completion_tokens == 0
    assert estimate.prompt_tokens > 1.9 * weigh(LONG_ENGLISH).tokens


def observe_text_tokens(
    counter: TokenCounter, ratio: float, text: str = LONG_ENGLISH, group: str = "fast", model: str = "m"
) -> None:
    counter.observe(ask(text, group), round(weigh(text).tokens * ratio) + MESSAGE_TOKENS, model)


@pytest.mark.parametrize("ratio", [0.2, 0.9, 1.6])
def test_the_estimate_comes_to_what_answers_say_and_stays_a_little_above(ratio: float) -> None:
    counter = TokenCounter()
    for _ in range(300):
        observe_text_tokens(counter, ratio)
    true = ratio * weigh(LONG_ENGLISH).tokens
    assert 1.03 * true < estimate_text(counter) <= 1.08 * true + 1


def test_one_observation_does_not_lower_an_estimate() -> None:
    counter = TokenCounter()
    before = estimate_text(counter)
    observe_text_tokens(counter, 0.2)
    assert estimate_text(counter) >= before - 1


def test_an_estimate_that_was_too_low_is_raised_at_once() -> None:
    counter = TokenCounter()
    observe_text_tokens(counter, 1.7)
    assert estimate_text(counter) >= 1.7 * weigh(LONG_ENGLISH).tokens


def test_answers_that_come_in_together_do_not_push_each_other_on() -> None:
    counter = TokenCounter()
    for _ in range(64):
        observe_text_tokens(counter, 1.5)
    assert estimate_text(counter) <= 1.6 * weigh(LONG_ENGLISH).tokens


def test_few_prompts_are_longer_than_estimated_once_answers_came() -> None:
    draw, counter, too_short = random.Random(7), TokenCounter(), 0
    for _ in range(400):
        ratio = draw.gauss(1.0, 0.1)
        too_short += estimate_text(counter) < ratio * weigh(LONG_ENGLISH).tokens
        observe_text_tokens(counter, ratio)
    assert too_short <= 400 * 0.03


def test_a_strange_answer_moves_the_estimate_within_bounds() -> None:
    counter, plain = TokenCounter(), weigh(LONG_ENGLISH).tokens
    counter.observe(ask(), 10**9, "m")
    assert estimate_text(counter) <= 4 * plain + 1
    for _ in range(SURE_AFTER):
        counter.observe(ask(model="other"), 0, "m2")
    assert estimate_text(counter, model="other") >= 0.1 * plain


def test_models_and_scripts_are_learnt_apart() -> None:
    counter, russian = TokenCounter(), BY_NAME["russian"].text * 3
    before = estimate_text(counter), estimate_text(counter, russian, "other")
    for _ in range(20):
        observe_text_tokens(counter, 0.4, russian, "fast")
    assert (estimate_text(counter), estimate_text(counter, russian, "other")) == before
    assert estimate_text(counter, russian) < 0.6 * before[1]


def test_a_group_of_several_models_is_estimated_by_the_one_that_makes_most_of_a_text() -> None:
    counter = TokenCounter()
    for _ in range(60):
        observe_text_tokens(counter, 1.6, model="wordy")
        observe_text_tokens(counter, 0.8, model="terse")
    assert 1.6 < estimate_text(counter) / weigh(LONG_ENGLISH).tokens <= 1.6 * 1.08
    assert 1.6 < counter.count(LONG_ENGLISH, "wordy") / weigh(LONG_ENGLISH).tokens <= 1.6 * 1.08
    assert 0.8 < counter.count(LONG_ENGLISH, "terse") / weigh(LONG_ENGLISH).tokens <= 0.8 * 1.08


async def test_a_pool_learns_of_the_model_that_answered() -> None:
    counter = TokenCounter()
    catalog = build_catalog(ModelGroup("fast", (deploy("a"), deploy("b")), strategy="priority"))
    pool = Pool(catalog, tokens=counter, registry=build_registry({"a": Script(), "b": Script()}))
    before = counter.count(LONG_ENGLISH, "a-model")
    for _ in range(20):
        await pool.complete(ask())
    await pool.aclose()
    assert counter.count(LONG_ENGLISH, "a-model") < before / 2
    assert counter.count(LONG_ENGLISH, "b-model") == before


def test_what_is_learnt_of_a_model_in_one_group_is_known_in_another_from_its_first_answer_there() -> None:
    counter = TokenCounter()
    for _ in range(60):
        observe_text_tokens(counter, 0.5, group="fast")
    observe_text_tokens(counter, 0.5, group="quality")
    assert estimate_text(counter, model="quality") == estimate_text(counter, model="fast")


def test_short_prompts_teach_nothing() -> None:
    counter = TokenCounter()
    for _ in range(20):
        counter.observe(ask("hello"), 60, "m")
    assert estimate_text(counter) == estimate_text(TokenCounter())


def test_later_on_an_answer_is_only_looked_at_now_and_then() -> None:
    counter = TokenCounter()
    for _ in range(SURE_AFTER):
        observe_text_tokens(counter, 1.0)
    settled = estimate_text(counter)
    observe_text_tokens(counter, 3.0)
    assert estimate_text(counter) == settled
    for _ in range(8):
        observe_text_tokens(counter, 3.0)
    assert estimate_text(counter) > settled


@pytest.mark.parametrize(("name", "script"), [("english", PLAIN), ("german", "latin with accents"), ("thai", "indic")])
def test_a_text_is_of_the_script_that_weighs_most(name: str, script: str) -> None:
    assert weigh(BY_NAME[name].text).script == script


MERGES = (b"he", b"ll", b"hell", b"hello")


def write_vocabulary(directory: Path, name: str = "o200k_base.tiktoken") -> None:
    tokens = [*(bytes([byte]) for byte in range(256)), *MERGES]
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    (directory / name).write_text("".join(lines))


@pytest.mark.parametrize("name", ["o200k_base.tiktoken", "fb374d419588a4632f3f557e76b4b70aebbca790"])
@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o"])
def test_with_its_data_at_hand_a_count_is_exact(tmp_path: Path, name: str, model: str) -> None:
    write_vocabulary(tmp_path, name)
    counter = TokenCounter(tmp_path)
    assert (counter.find_exact("hello ü", model), counter.count("hello ü", model)) == (4, 4)
    assert counter.count_prompt(ask("hello ü"), model) == 4 + MESSAGE_TOKENS


@pytest.mark.parametrize("model", ["qwen3:8b", "claude-sonnet-4-5", "gpt-4"])
def test_of_other_models_it_is_estimated(tmp_path: Path, model: str) -> None:
    write_vocabulary(tmp_path)
    counter = TokenCounter(tmp_path)
    assert counter.find_exact("hello", model) is None
    assert counter.count("hello", model) > 0
    assert counter.count_prompt(ask(), model) == counter.estimate(ask()).prompt_tokens


def test_special_tokens_in_a_text_are_text(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    assert TokenCounter(tmp_path).count("<|endoftext|>", "gpt-4o") == 13


@pytest.mark.parametrize("content", ["aGVsbG8= 7\n", "no vocabulary", "!!! 1\n", ""])
def test_a_file_that_is_not_whole_counts_nothing_and_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "o200k_base.tiktoken").write_text(content)
    counter = TokenCounter(tmp_path)
    with capture_logs() as logs:
        assert [counter.find_exact("hello", "gpt-4o") for _ in range(2)] == [None, None]
    assert [log["event"] for log in logs] == ["token_vocabulary_unusable"]


NOTICE_NETWORK = """
import sys
def notice(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        print("network:", event, flush=True)
        raise SystemExit(7)
sys.addaudithook(notice)
"""
COUNT = """
from pathlib import Path
from llm_pool.tokens.counting import TokenCounter
for directory in (None, Path(sys.argv[1])):
    counter = TokenCounter(directory)
    for model in ("gpt-4o", "gpt-4", "text-embedding-3-small", "gpt-2", "no-such-model"):
        assert counter.find_exact("hello", model) is None
        assert counter.count("hello", model) > 0
"""
COUNT_AS_TIKTOKEN_DOES = """
import tiktoken
tiktoken.get_encoding("o200k_base")
"""


@pytest.mark.parametrize(("program", "status"), [(COUNT, 0), (COUNT_AS_TIKTOKEN_DOES, 7)])
def test_nothing_is_ever_fetched(tmp_path: Path, program: str, status: int) -> None:
    environment = {**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", NOTICE_NETWORK + program, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert ("network:" in done.stdout) is (status == 7)
    assert list(tmp_path.iterdir()) == []
