"""Two HTML pages that need nothing besides themselves: a report, and what stays private."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffence_jax.audit.rows import PredictorRow
from diffence_jax.metrics import Estimate
from diffence_jax.report import (
  cells,
  figures,
  shadow,
  shadow_canaries,
  shadow_figures,
  shadow_finding,
  shadow_optimised,
  shadow_rows,
  summary,
  table,
  worst_off,
)
from diffence_jax.report.results import Results
from diffence_jax.report.template import render

_HERE = Path(__file__).parent
# The figures' own colour follows the reader's colour scheme.
_THEME = (
  "<style>:root{--ink:#24303c}@media(prefers-color-scheme:dark){:root{--ink:#d5dbe2}}</style>"
)


class Timing(NamedTuple):
  """What a stage took.

  Attributes:
    name: of the stage.
    fingerprint: of its artifact.
    seconds: to compute it; of the last run only, where it was resumed. None: not known.
    cached: whether it was there already.
  """

  name: str
  fingerprint: str
  seconds: float | None
  cached: bool


def render_page(
  results: Results,
  arrays: Mapping[str, np.ndarray],
  stages: Sequence[Timing],
) -> str:
  """Renders the report, which shows no sample of the data.

  Args:
    results: of the experiment.
    arrays: for every predictor p `p/phi_members` and `p/phi_nonmembers` f[N], and `p/fpr` and
      `p/tpr` f64[P] of its strongest attack; `images/samples` [P,H,W,C], u8 or f32 in [0, 1],
      that the diffusion model drew from noise. With shadow models also `p/loo_fpr`,
      `p/loo_tpr`, `p/loo_low` and `p/loo_high` f64[P], the ROC of the main attack over all
      models in turn and its 95% band.
    stages: what every stage took.

  Returns:
    HTML text with all styles and images in it, the same for the same input.
  """
  return render(
    _HERE / "page.html.jinja",
    results=results,
    stages=stages,
    cells=cells,
    table=table,
    summary=summary,
    shadow=shadow,
    shadow_canaries=shadow_canaries,
    shadow_finding=shadow_finding,
    shadow_optimised=shadow_optimised,
    shadow_rows=shadow_rows,
    worst_off=worst_off,
    settings=json.dumps(results.settings, indent=2, sort_keys=True),
    **_plots(results, arrays),
    **(_shadow_plots(results, arrays) if results.shadow else {}),
  )


def render_private_page(results: Results, arrays: Mapping[str, np.ndarray]) -> str:
  """Renders what shows single samples of the data, members among them.

  Args:
    results: of the experiment.
    arrays: `images/raw` [G,H,W,C] and `images/reconstructed` [G,R,H,W,C], u8 or f32 in [0, 1].
      With shadow models also those of the most exposed examples, as `collect.arrays_of` has
      them, and every predictor's `p/example_auc`, `p/example_low` and `p/example_high`.

  Returns:
    HTML text with all styles and images in it, the same for the same input.
  """
  grid = figures.reconstruction_grid(arrays["images/raw"], arrays["images/reconstructed"])
  return render(
    _HERE / "private.html.jinja",
    results=results,
    reconstructions=_uri("image/png", grid),
    exposed=_exposed(results, arrays) if results.shadow else [],
  )


def _exposed(results, arrays):
  """The most exposed examples: each one's image, facts, and AUC behind every predictor."""
  names = [row.name for row in results.predictors]
  shown = []
  for place, at in enumerate(arrays["exposed/at"]):
    facts = {key: arrays[f"exposed/{key}"][place] for key in ("ids", "labels", "is_member")}
    aucs = [
      Estimate(*(arrays[f"{name}/example_{end}"][at] for end in ("auc", "low", "high")))
      for name in names
    ]
    image = figures.sample_grid(arrays["exposed/images"][place : place + 1])
    shown.append({**facts, "aucs": aucs, "image": _uri("image/png", image)})
  return shown


def _plots(results, arrays):
  rows = {row.name: row for row in results.predictors}

  def pairs(first, second):
    return {name: (arrays[f"{name}/{first}"], arrays[f"{name}/{second}"]) for name in rows}

  roc = figures.roc_curves(pairs("fpr", "tpr"), *table.reported_sizes(results))
  histograms = figures.phi_histograms(
    pairs("phi_members", "phi_nonmembers"),
    {name: row.interval for name, row in rows.items()},
  )
  aucs = figures.attack_aucs(
    {name: row.highest_auc for name, row in rows.items()},
    {name: row.gap.value for name, row in rows.items()},
    label_floors(rows.values()),
  )
  return {
    "roc": svg_uri(roc),
    "histograms": svg_uri(histograms),
    "aucs": svg_uri(aucs),
    "samples": _uri("image/png", figures.sample_grid(arrays["images/samples"])),
  }


def label_floors(rows: Iterable[PredictorRow]) -> dict[str, float]:
  """Predictor to its label floor, of those that have one."""
  return {row.name: row.label_floor.value for row in rows if row.label_floor is not None}


def _shadow_plots(results, arrays):
  names = [row.name for row in results.predictors]
  curves = ("fpr", "tpr", "low", "high")
  roc = shadow_figures.banded_roc(
    {name: tuple(arrays[f"{name}/loo_{curve}"] for curve in curves) for name in names},
    *shadow_rows.pooled_sizes(results),
  )
  plots = {"models_roc": svg_uri(roc), "repeated": None}
  asked = shadow_rows.repeated_series(results)
  if asked:
    plots["repeated"] = svg_uri(shadow_figures.repeated_queries(asked, names))
  return plots


def svg_uri(svg: bytes) -> str:
  """An SVG image as a URI, in the reader's colour scheme."""
  text = svg.decode().replace(figures.INK, "var(--ink)")
  end = text.index(">") + 1
  return _uri("image/svg+xml", (text[:end] + _THEME + text[end:]).encode())


def _uri(media_type: str, content: bytes) -> str:
  return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
