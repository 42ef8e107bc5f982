"""Texts whose true number of tokens is known, from the file beside this one."""

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Sample:
    """A text, and what each of three tokenizers made of it."""

    name: str
    text: str
    cl100k: int
    o200k: int
    anthropic: int

    @property
    def largest(self) -> int:
        return max(self.cl100k, self.o200k, self.anthropic)


SAMPLES = tuple(
    Sample(**entry) for entry in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
)
