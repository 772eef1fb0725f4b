"""The plots of attacks with shadow models, as SVG bytes that depend on their input only."""

from collections.abc import Mapping, Sequence

import numpy as np

from diffence_jax.report.figures import (
  INK,
  TITLE,
  as_percent,
  draw_svg,
  plain,
  start_roc,
  styles,
)


def banded_roc(
  curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
  num_members: int,
  num_nonmembers: int,
) -> bytes:
  """ROC curves with their 95% bands on logarithmic axes, which end at one pooled sample.

  Args:
    curves: predictor to false and true positive rates, and the ends of the band, f64[P].
    num_members: samples behind the true positive rates, of all models.
    num_nonmembers: samples behind the false positive rates, of all models.

  Returns:
    An SVG image.
  """

  def draw(figure):
    axes = figure.add_subplot()
    left, bottom = 1.0 / num_nonmembers, 1.0 / num_members
    start_roc(axes, left, bottom)
    for (name, (fpr, *rates)), style in zip(curves.items(), styles(), strict=False):
      # A rate of zero has no place on a logarithmic axis; it is drawn at the edge.
      tpr, low, high = (np.maximum(rate, bottom) for rate in rates)
      axes.fill_between(
        fpr, low, high, step="post", color=style["color"], alpha=0.13, linewidth=0
      )
      axes.plot(fpr, tpr, drawstyle="steps-post", linewidth=1.8, label=plain(name), **style)
    axes.legend(loc="lower right", frameon=False)

  return draw_svg(draw, 4.6)


def repeated_queries(
  series: Mapping[str, Mapping[str, Mapping[str, Sequence[Sequence[float]]]]],
  order: Sequence[str],
) -> bytes:
  """Figures against the number of queries: a row a figure, a column a predictor.

  Args:
    series: figure ("AUC") to predictor to way of asking to points (k, value, low, high) with
      rising k. The predictor that is first in `order` has one point a figure, drawn as a line
      across; of the others the first way's intervals are drawn too. The last figure has all
      ways.
    order: all predictors as the other plots show them, so that each keeps its colour.

  Returns:
    An SVG image.
  """
  colors = {name: style["color"] for name, style in zip(order, styles(), strict=False)}
  dashes = ("-", (0, (5, 1.8)), (0, (1.2, 1.5)))

  def draw(figure):
    from matplotlib.lines import Line2D

    names = [name for name in next(iter(series.values())) if name != order[0]]
    panels = figure.subplots(len(series), len(names), sharex=True, sharey="row", squeeze=False)
    for row, (label, curves) in zip(panels, series.items(), strict=True):
      ((_, level, *_),) = next(iter(curves[order[0]].values()))
      row[0].set_ylabel(label)
      if label.startswith("TPR"):
        row[0].yaxis.set_major_formatter(as_percent)
      for axes, name in zip(row, names, strict=True):
        axes.axhline(level, color=colors[order[0]], linewidth=1.4)
        for i, (points, dash) in enumerate(zip(curves[name].values(), dashes, strict=False)):
          queries, values, low, high = np.asarray(points, np.float64).T
          look = {"color": colors[name], "linestyle": dash, "marker": "o"}
          if i == 0:
            axes.errorbar(
              queries,
              values,
              yerr=np.maximum([values - low, high - values], 0.0),
              linewidth=1.6,
              markersize=3.5,
              elinewidth=1.0,
              capsize=2.0,
              **look,
            )
            axes.set_xscale("log")
            axes.set_xticks(queries, [f"{k:g}" for k in queries])
            axes.set_xticks([], minor=True)
          else:
            axes.plot(queries, values, linewidth=1.1, markersize=2.5, **look)
        axes.grid(color=INK, alpha=0.15)
    for axes, name in zip(panels[0], names, strict=True):
      axes.set_title(plain(name), **TITLE)
    figure.supxlabel("queries about an image", fontsize=10)
    # The ways of asking are told apart by their dashes, in the colour of every predictor.
    first = Line2D([], [], color=colors[order[0]], label=plain(order[0]))
    # The last figure has all ways, though not of every predictor.
    ways = max(list(series.values())[-1].values(), key=len)
    handles = [
      Line2D([], [], color=INK, linewidth=1.1 if i else 1.6, linestyle=dash, label=way)
      for i, (way, dash) in enumerate(zip(ways, dashes, strict=False))
    ]
    figure.legend(handles=[first, *handles], loc="outside upper center", ncols=2, frameon=False)

  return draw_svg(draw, 1.2 + 1.9 * len(series))
