"""The plots of attacks with shadow models: right shapes, and the same bytes every time."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from report_example import NAMES, stored, stored_arrays, with_shadow_aucs

from diffence_jax.report import shadow_figures, shadow_rows

_ARRAYS = stored_arrays()
_CURVES = {
  name: tuple(_ARRAYS[f"{name}/loo_{figure}"] for figure in ("fpr", "tpr", "low", "high"))
  for name in NAMES
}
_HOSTILE = "a <b> & $c$"


def _series(**changes):
  return shadow_rows.repeated_series(with_shadow_aucs(**changes))


def _roc(curves=_CURVES, members=19_200, nonmembers=19_200):
  return shadow_figures.banded_roc(curves, members, nonmembers)


def _repeated(**changes):
  return shadow_figures.repeated_queries(_series(**changes), NAMES)


def _texts(svg):
  return [
    "".join(e.itertext()) for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")
  ]


@pytest.mark.parametrize("plot", [_roc, _repeated])
def test_svg_is_the_same_every_time_and_refers_to_nothing_outside(plot):
  svg = plot()
  assert plot() == svg
  text = svg.decode()
  assert text.startswith("<svg")
  assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', text))
  assert "<script" not in text


def test_roc_names_predictors_and_ends_at_one_sample():
  texts = _texts(_roc({_HOSTILE: _CURVES["undefended"]}))
  assert _HOSTILE in texts
  assert "0.01%" in texts
  assert "0.01%" not in _texts(_roc(members=500, nonmembers=500))


def test_roc_draws_the_band():
  fpr, tpr, low, high = _CURVES["undefended"]
  wide = _roc({"p": (fpr, tpr, low, high)})
  assert wide != _roc({"p": (fpr, tpr, low, tpr)})
  assert wide != _roc({"p": (fpr, tpr, tpr, high)})


def test_roc_draws_rates_of_zero_at_the_edge():
  fpr = np.array([1e-3, 0.1, 1.0])
  zeros, edge = np.array([0.0, 0.5, 1.0]), np.array([0.01, 0.5, 1.0])
  assert _roc({"p": (fpr, zeros, zeros, edge)}, 100, 100) == _roc(
    {"p": (fpr, edge, edge, edge)}, 100, 100
  )


def test_series_are_of_what_can_be_asked_again():
  series = _series()
  assert list(series) == ["AUC,\nall models", "TPR at 1% FPR,\nall models", "AUC,\nthe target"]
  for found in series.values():
    assert tuple(found) == NAMES
    assert [len(points) for points in found["undefended"].values()] == [1]
  models = series["AUC,\nall models"]["scenario 1"]
  assert list(models) == ["same image"]
  np.testing.assert_allclose(
    models["same image"],
    [(k, v, v - 0.004, v + 0.004) for k, v in ((1, 0.61), (4, 0.66), (16, 0.71))],
  )
  ways = series["AUC,\nthe target"]["scenario 1"]
  assert list(ways) == ["same image", "same image, raw shadow models", "near duplicates"]
  # Near-duplicates are sent to what selects; averages are asked the same image only.
  assert list(series["AUC,\nthe target"]["average"]) == list(ways)[:2]
  np.testing.assert_allclose(
    ways["same image"],
    [(k, v, v - 0.04, v + 0.04) for k, v in ((1, 0.6), (4, 0.65), (16, 0.7))],
  )
  np.testing.assert_allclose([p[1] for p in ways["near duplicates"]], [0.58, 0.63, 0.68])
  raw = ways["same image, raw shadow models"]
  np.testing.assert_allclose([p[1] for p in raw], [0.59, 0.64, 0.69])
  tprs = series["TPR at 1% FPR,\nall models"]["scenario 3"]["same image"]
  wanted = {"predictor": "scenario 3", "attack": "lira_online"}
  once, twice = (row.tpr_at_fpr[1] for row in shadow_rows.in_turn(stored(), **wanted))
  # The run's own rates, those of two queries at any larger number.
  assert tprs == [
    (k, rate.value, rate.low, rate.high) for k, rate in ((1, once), (4, twice), (16, twice))
  ]
  assert once != twice


def test_series_of_a_run_are_its_own_figures():
  series = shadow_rows.repeated_series(stored())
  wanted = {"predictor": "scenario 2", "attack": "lira_online"}
  aucs = [(row.queries, *row.auc) for row in shadow_rows.in_turn(stored(), **wanted)]
  assert series["AUC,\nall models"]["scenario 2"]["same image"] == aucs
  raw = shadow_rows.adaptive(stored(), **wanted, inputs="same", shadow_models="raw")
  found = series["AUC,\nthe target"]["scenario 2"]["same image, raw shadow models"]
  assert found == [(row.queries, *row.auc) for row in raw]


def test_no_series_without_repeated_queries():
  assert _series(queries=(1,)) == {}


def test_figure_names_predictors_ways_and_numbers():
  texts = _texts(_repeated(queries=(1, 4, 64)))
  for expected in (
    *NAMES, "same image", "near duplicates", "same image, raw shadow models", "AUC,",
    "TPR at 1% FPR,", "all models", "the target", "1", "4", "64",
  ):  # fmt: skip
    assert expected in texts
  hostile = {
    figure: {"undefended": found["undefended"], _HOSTILE: found["scenario 1"]}
    for figure, found in _series().items()
  }
  assert _HOSTILE in _texts(shadow_figures.repeated_queries(hostile, ("undefended", _HOSTILE)))


def test_figure_draws_the_intervals_of_all_models():
  series = _series()
  drawn = shadow_figures.repeated_queries(series, NAMES)
  points = series["AUC,\nall models"]["scenario 2"]["same image"]
  (k, value, low, high) = points[-1]
  points[-1] = (k, value, low - 0.05, high)
  assert shadow_figures.repeated_queries(series, NAMES) != drawn
  # An interval of other samples need not contain the value.
  points[-1] = (k, value, value + 0.01, high + 0.01)
  assert shadow_figures.repeated_queries(series, NAMES) != drawn


def test_every_way_has_its_own_dashes():
  svg = _repeated().decode()
  assert len(set(re.findall(r"stroke-dasharray: ([\d. ,]+)", svg))) == 2


def test_plots_leave_the_global_settings_alone():
  import matplotlib

  before = dict(matplotlib.rcParams)
  _roc()
  _repeated()
  assert dict(matplotlib.rcParams) == before
