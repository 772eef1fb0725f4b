"""The plot of defenses: what privacy costs in accuracy."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from diffence_jax.report.figures import INK, TITLE, as_percent, draw_svg, plain, styles
from diffence_jax.tables.defense_rows import COLUMNS

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
_SIZE = 5.5


def privacy_utility(rows: Sequence[Mapping[str, Any]]) -> bytes:
  """Highest attack AUC against test accuracy, a panel a scenario.

  The paper's figures 5, 6 and 12. In every panel a hollow point is a defense alone, a full one
  the same defense behind Diffence, with an arrow from one to the other. Bars are the intervals
  of `aggregate`.

  Args:
    rows: as `aggregate` makes them.

  Returns:
    An SVG image.
  """

  def draw(figure):
    from matplotlib.lines import Line2D

    looks = [
      {"color": style["color"], "marker": marker}
      for _, style, marker in zip(rows, styles(), itertools.cycle(_MARKERS), strict=False)
    ]
    panels = figure.subplots(len(COLUMNS) - 1, sharex=True, sharey=True)
    for axes, name in zip(panels, COLUMNS[1:], strict=True):
      for row, look in zip(rows, looks, strict=True):
        alone, defended = (_point(row["columns"][column]) for column in ("alone", name))
        _draw_point(axes, alone, markerfacecolor="none", **look)
        _draw_point(axes, defended, **look)
        axes.annotate(
          "",
          xy=defended[0],
          xytext=alone[0],
          arrowprops={"arrowstyle": "->", "color": look["color"], "linewidth": 1.0},
        )
      axes.axvline(0.5, color=INK, alpha=0.5, linewidth=1, linestyle=":")
      axes.set_title(name, **TITLE)
      axes.yaxis.set_major_formatter(as_percent)
      axes.grid(color=INK, alpha=0.15)
    panels[-1].set_xlabel("highest attack AUC (dotted: guessing)")
    figure.supylabel("test accuracy", fontsize=10)
    handles = [
      Line2D([], [], linestyle="none", markersize=_SIZE, label=plain(row["title"]), **look)
      for row, look in zip(rows, looks, strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)

  return draw_svg(draw, 7.6 + 0.22 * -(-len(rows) // 3))


def _point(column):
  """The place, and how far the bars reach from it, both ways along both axes."""
  place, bars = [], []
  for figure in (column["highest_auc"], column["test_accuracy"]):
    value = figure["value"]
    place.append(value)
    bars.append([[value - figure["low"]], [figure["high"] - value]])
  return place, bars


def _draw_point(axes, point, **look):
  (x, y), (xerr, yerr) = point
  bars = axes.errorbar(
    x, y, xerr=xerr, yerr=yerr, markersize=_SIZE, linestyle="none", elinewidth=0.8, **look
  )
  for line in bars[2]:
    line.set_alpha(0.4)
