"""Draws the plot; runs in an environment that has matplotlib, and knows nothing but the figures it reads.

python plot.py FIGURES.json PLOT.png
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

OURS, OTHERS, FLOOR = "#1f6feb", "#9aa4b2", "#d4a72c"


def main() -> None:
    figures = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    panels = figures["panels"]
    figure = Figure(figsize=(4.6 * len(panels), 4.2))
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        draw(axis, panel)
    figure.suptitle(figures["title"], fontsize=8, y=0.98)
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=130)


def draw(axis: Any, panel: dict[str, Any]) -> None:
    """One bar for each system, ours on top."""
    bars = panel["bars"]
    names = [bar["name"] for bar in bars]
    drawn = axis.barh(names, [bar["value"] for bar in bars], color=[choose_colour(name) for name in names])
    axis.bar_label(drawn, labels=[bar["label"] for bar in bars], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.set_title(panel["title"], fontsize=9)
    axis.set_xlabel(panel["unit"], fontsize=8)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.18)
    axis.spines[["top", "right"]].set_visible(False)


def choose_colour(name: str) -> str:
    if name.startswith("llmyard"):
        return OURS
    return FLOOR if name == "floor" else OTHERS


if __name__ == "__main__":
    main()
