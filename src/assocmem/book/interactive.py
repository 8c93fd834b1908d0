"""Figures that the reader moves on the site: every frame is computed here, and only drawn there.

A chapter shows an ordinary figure, and after it a cell that puts out `interactive(...)`: its frames
as JSON, in an element that stays hidden. Where JavaScript runs, book/_static/interactive.js puts a
slider and a drawing of the frames in the figure's place; elsewhere the picture simply stays.
JavaScript computes nothing but pixels, so that the two cannot come apart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from IPython.display import HTML

KINDS = ("bars", "line")


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Args:
        label: what it shows.
        limits: its two ends.
        ticks: values and what is written there.
        log: whether it is logarithmic.
    """

    label: str
    limits: tuple[float, float]
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, values: Sequence[float]) -> list[float]:
        """Values as fractions of the axis, to four decimals.

        Raises:
            ValueError: when a value lies off the axis, or is NaN.
        """
        scale = math.log if self.log else float
        low, high = map(scale, self.limits)
        places = [round((scale(float(x)) - low) / (high - low), 4) for x in values]
        off = [x for x, at in zip(values, places, strict=True) if not 0 <= at <= 1]
        if off:
            raise ValueError(f"values must lie on the axis {self.label!r}, got {float(off[0]):.4g}")
        return places


@dataclass(frozen=True)
class Panel:
    """One drawing: bars, or a line, over positions that all frames share.

    Args:
        kind: "bars" or "line".
        title: what stands above it.
        x: positions, in units of its axis.
        x_axis: the horizontal axis.
        y_axis: the vertical axis; bars stand on 0, or on its lower end where 0 is not inside.
        level: where a dotted horizontal line is drawn; nowhere when None.
    """

    kind: str
    title: str
    x: Sequence[float]
    x_axis: Axis
    y_axis: Axis
    level: float | None = None

    def as_json(self) -> dict:
        """What interactive.js reads; all positions are fractions of their axis."""
        axes = {}
        for name, axis in (("x", self.x_axis), ("y", self.y_axis)):
            at = axis.place([value for value, _ in axis.ticks])
            ticks = [list(tick) for tick in zip(at, [text for _, text in axis.ticks], strict=True)]
            axes[name] = {"label": axis.label, "ticks": ticks}
        level = None if self.level is None else self.y_axis.place([self.level])[0]
        foot = 0.0
        if not self.y_axis.log and self.y_axis.limits[0] < 0 < self.y_axis.limits[1]:
            (foot,) = self.y_axis.place([0])
        return {
            "kind": self.kind, "title": self.title, "at": self.x_axis.place(self.x), "axes": axes,
            "foot": foot, "level": level,
        }  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What the figure shows at one setting of the slider.

    Args:
        setting: the setting, as text.
        says: one sentence on what is to be seen, with its numbers; read out to those who listen.
        heights: for each panel, the heights over its positions, in units of its vertical axis.
    """

    setting: str
    says: str
    heights: Sequence[Sequence[float]]


def interactive(
    figure: str, control: str, panels: Sequence[Panel], frames: Sequence[Frame], start: int = 0
) -> HTML:
    """Frames for the figure of that name, as an output that the site turns into a slider.

    Args:
        figure: the name of the static figure, as in its cell's metadata.
        control: what the slider sets.
        panels: the drawings, from left to right.
        frames: one for each setting, in order.
        start: the frame that is shown first.

    Raises:
        ValueError: when a kind is unknown, a number of heights does not fit, a value lies off its
            axis, or start is not a frame.
    """
    if not 0 <= start < len(frames):
        raise ValueError(f"start must be one of {len(frames)} frames, got {start}")
    for panel in panels:
        if panel.kind not in KINDS:
            raise ValueError(f"kind must be one of {list(KINDS)}, got {panel.kind!r}")
    for frame in frames:
        sizes, wanted = [len(h) for h in frame.heights], [len(panel.x) for panel in panels]
        if sizes != wanted:
            raise ValueError(f"heights of {frame.setting!r} must have sizes {wanted}, got {sizes}")
    data = {
        "control": control,
        "start": start,
        "panels": [panel.as_json() for panel in panels],
        "frames": [
            {
                "setting": frame.setting,
                "says": frame.says,
                "heights": [
                    panel.y_axis.place(h) for panel, h in zip(panels, frame.heights, strict=True)
                ],
            }
            for frame in frames
        ],
    }
    return stand_in("interactive", figure, data)


def stand_in(kind: str, figure: str, data: dict) -> HTML:
    """Data for the script that draws this kind of figure, in an element that stays hidden.

    Args:
        kind: the class that the script looks for.
        figure: the name of the static figure, whose picture gives way.
        data: what the script reads.
    """
    # A "<" inside would end the script element early.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return HTML(
        f'<div class="{kind}" data-for="{figure}" hidden>'
        f'<script type="application/json">{text}</script></div>'
    )
