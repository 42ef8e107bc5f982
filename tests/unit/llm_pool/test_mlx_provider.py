"""What can be said of MLX without it: how it is missed, its options, and the texts that end an answer."""

import importlib.util
import subprocess
import sys

import pytest

from llm_pool.catalog import Deployment
from llm_pool.providers.http import Connections
from llm_pool.providers.mlx import create_mlx
from llm_pool.providers.stop_texts import StopTexts
from shared.errors import ConfigurationError

CREATE_WITHOUT_MLX = """
import sys
from importlib.machinery import PathFinder

class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "mlx_lm":
            return None
        return PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not PathFinder] + [Hidden]
from llm_pool.catalog import Deployment
from llm_pool.providers.http import Connections
from llm_pool.providers.mlx import create_mlx

create_mlx(Deployment("tiny", "mlx", "model"), Connections())
"""


def test_where_it_is_not_installed_the_start_says_how_to() -> None:
    ended = subprocess.run([sys.executable, "-c", CREATE_WITHOUT_MLX], capture_output=True, text=True, timeout=60)
    assert "ConfigurationError: Deployment 'tiny' needs mlx-lm" in ended.stderr
    assert "pip install 'llmyard[mlx]'" in ended.stderr


@pytest.mark.skipif(importlib.util.find_spec("mlx_lm") is None, reason="mlx-lm is not installed")
@pytest.mark.parametrize("options", [{"temprature": 1.0}, {"temperature": -1}, {"top_p": 0}])
def test_an_option_it_does_not_know_stops_the_start(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"`options\.t"):
        create_mlx(Deployment("tiny", "mlx", "model", options=options), Connections())


@pytest.mark.parametrize(
    ("pieces", "stops", "said", "was_met"),
    [
        (["hello ", "world"], (), "hello world", False),
        (["hello ", "world"], ("wor",), "hello ", True),
        (["a E", "N", "D b"], ("END",), "a ", True),
        (["a E", "N", "T"], ("END",), "a ENT", False),
        (["a EN"], ("END",), "a EN", False),
        (["aab"], ("ab", "b"), "a", True),
        (["a\n", "\nb"], ("\n\n",), "a", True),
        (["x"], ("",), "x", False),
        (["aa", "ab"], ("aab",), "a", True),
    ],
)
def test_an_answer_ends_before_a_stop_text(pieces: list[str], stops: tuple[str, ...], said: str, was_met: bool) -> None:
    texts = StopTexts(stops)
    told = ""
    for piece in pieces:
        told += texts.add(piece)
        if texts.was_met:
            break
    assert (told + texts.flush(), texts.was_met) == (said, was_met)


def test_what_begins_like_a_stop_text_is_held_back_and_no_more() -> None:
    texts = StopTexts(("END",))
    assert [texts.add(piece) for piece in ("one E", "N", "one")] == ["one ", "", "ENone"]
