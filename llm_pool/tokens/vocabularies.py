"""Exact token counts for OpenAI's models, where the optional `tiktoken` is installed and its data lies at hand.

tiktoken's own way to an encoding fetches its data from the internet when it is not there, or not whole. Nothing here
goes that way: the file is read from the given folder, and the encoding is made from it. So no count ever waits for, or
tells, anybody outside.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from tiktoken import Encoding

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Source:
    """How one encoding is made; patterns and file names are those of `tiktoken_ext.openai_public` (MIT licence)."""

    file_names: tuple[str, ...]
    """What tiktoken calls the file in its cache, and what it is called where it is published."""
    pattern: str


_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_SOURCES: Mapping[str, _Source] = {
    "cl100k_base": _Source(
        ("9b5ad71b2ce5302211f9c61530b329a4922fc6a4", "cl100k_base.tiktoken"),
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
        r"|\s+(?!\S)|\s",
    ),
    "o200k_base": _Source(
        ("fb374d419588a4632f3f557e76b4b70aebbca790", "o200k_base.tiktoken"),
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _WORD + "|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _WORD + "|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}


class TokenVocabularies:
    """Those found in one folder, each read when it is first needed."""

    def __init__(self, directory: Path | None) -> None:
        """`directory` is what TIKTOKEN_CACHE_DIR names for others; without one there is none."""
        self._directory = directory
        self._encodings: dict[str, Encoding | None] = {}

    def find_count(self, text: str, model: str) -> int | None:
        """None where it is not known exactly."""
        if self._directory is None:
            return None
        name = _find_encoding_name(model.rpartition("/")[2])
        if name is None:
            return None
        if name not in self._encodings:
            self._encodings[name] = _find_encoding(name, self._directory)
        encoding = self._encodings[name]
        # Special tokens that stand in a text are plain text there.
        return None if encoding is None else len(encoding.encode_ordinary(text))


def _find_encoding_name(model: str) -> str | None:
    try:
        from tiktoken import encoding_name_for_model

        return encoding_name_for_model(model)
    except (ImportError, KeyError):
        return None


def _find_encoding(name: str, directory: Path) -> "Encoding | None":
    from tiktoken import Encoding

    source = _SOURCES.get(name)
    files = [] if source is None else [directory / file_name for file_name in source.file_names]
    found = next((file for file in files if file.is_file()), None)
    if source is None or found is None:
        return None
    try:
        ranks = _read_ranks(found)
        return Encoding(name, pat_str=source.pattern, mergeable_ranks=ranks, special_tokens={})
    except (OSError, ValueError) as error:
        log.warning("token_vocabulary_unusable", encoding=name, error_type=type(error).__name__)
        return None


def _read_ranks(file: Path) -> dict[bytes, int]:
    """
    Raises:
        ValueError: it is not such a file, or not a whole one.
    """
    lines = (line.partition(b" ") for line in file.read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, _, rank in lines}
    if not all(bytes([byte]) in ranks for byte in range(256)):
        raise ValueError(f"{file.name} lacks some of the 256 bytes")
    return ranks
