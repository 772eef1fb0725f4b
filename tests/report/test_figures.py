"""The plots: right pixels, right shapes in the SVG, and the same bytes every time."""

import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from diffence_jax.metrics import Estimate
from diffence_jax.report import figures

_CURVES = {
  "undefended": (np.array([0.0, 0.0, 0.1, 1.0]), np.array([0.0, 0.3, 0.6, 1.0])),
  "a <b> & $c$": (np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.2, 1.0])),
}
_PHIS = {name: (np.linspace(-3, 9, 50), np.linspace(-5, 5, 80)) for name in _CURVES}
_INTERVALS = {"undefended": None, "a <b> & $c$": (-1e9, 2.0)}
_AUCS = dict.fromkeys(_CURVES, Estimate(0.7, 0.6, 0.8))
_FLOORS = dict.fromkeys(_CURVES, 0.55)

_PLOTS = {
  "roc": lambda: figures.roc_curves(_CURVES, 50, 80),
  "phi": lambda: figures.phi_histograms(_PHIS, _INTERVALS),
  "aucs": lambda: figures.attack_aucs(_AUCS, _FLOORS),
}


def _texts(svg):
  return [
    "".join(e.itertext()) for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")
  ]


def _pixels(png):
  return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("plot", _PLOTS)
def test_svg_is_the_same_every_time(plot):
  assert _PLOTS[plot]() == _PLOTS[plot]()


@pytest.mark.parametrize("plot", _PLOTS)
def test_svg_names_every_predictor_as_it_is_called(plot):
  assert set(_CURVES) <= set(_texts(_PLOTS[plot]()))


@pytest.mark.parametrize("plot", _PLOTS)
def test_svg_refers_to_nothing_outside(plot):
  svg = _PLOTS[plot]().decode()
  assert svg.startswith("<svg")
  assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', svg))
  assert "<script" not in svg


def test_plots_leave_the_global_settings_alone():
  import matplotlib

  before = dict(matplotlib.rcParams)
  for plot in _PLOTS.values():
    plot()
  assert dict(matplotlib.rcParams) == before


def test_roc_axes_end_at_one_sample():
  texts = _texts(figures.roc_curves(_CURVES, 20_000, 20_000))
  assert "0.01%" in texts
  assert "0.01%" not in _texts(figures.roc_curves(_CURVES, 500, 500))


def test_histogram_takes_infinite_phi_into_the_last_bin():
  with_infinity = {"p": (np.array([0.0, 1.0, np.inf]), np.array([0.0, 1.0]))}
  at_the_end = {"p": (np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0]))}
  nothing = {"p": None}
  assert figures.phi_histograms(with_infinity, nothing) == figures.phi_histograms(
    at_the_end, nothing
  )


def test_histogram_of_one_value_is_drawn():
  constant = {"p": (np.full(3, 2.0, np.float32), np.full(4, 2.0, np.float32))}
  assert "p" in _texts(figures.phi_histograms(constant, {"p": None}))


def test_any_number_of_predictors_has_a_style():
  names = [f"p{i}" for i in range(12)]
  aucs = {name: _AUCS["undefended"] for name in names}
  texts = _texts(figures.attack_aucs(aucs, dict.fromkeys(names, 0.5)))
  assert set(names) <= set(texts)


def test_the_label_floor_is_marked_where_there_is_one():
  plots = [figures.attack_aucs(_AUCS, _FLOORS, floors) for floors in
           (None, {}, {"undefended": 0.58}, dict.fromkeys(_AUCS, 0.58))]  # fmt: skip
  assert ["label floor" in _texts(plot) for plot in plots] == [False, False, True, True]
  assert all("gap floor" in _texts(plot) for plot in plots)
  assert plots[0] == plots[1] and len(set(plots)) == 3


def test_samples_are_enlarged_and_laid_out_in_rows():
  samples = np.arange(9 * 64, dtype=np.int64).reshape(9, 8, 8, 1).astype(np.uint8)
  pixels = _pixels(figures.sample_grid(samples))
  tile, gap = 48, 3
  assert pixels.shape == (2 * tile + gap, 8 * tile + 7 * gap, 4)
  for i, image in enumerate(samples):
    top, left = (tile + gap) * (i // 8), (tile + gap) * (i % 8)
    shown = pixels[top : top + tile : 6, left : left + tile : 6]
    np.testing.assert_array_equal(shown[..., :3], np.repeat(image, 3, axis=-1))
    assert (pixels[top : top + tile, left : left + tile, 3] == 255).all()
  assert (pixels[:, tile : tile + gap, 3] == 0).all()
  assert (pixels[tile + gap :, tile:, 3] == 0).all()


def test_floats_and_bytes_look_the_same():
  images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
  as_floats = images.astype(np.float32) / np.float32(255.0)
  assert figures.sample_grid(images) == figures.sample_grid(as_floats)


def test_reconstructions_are_below_their_image():
  raw = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1) * np.ones((64, 64, 3), np.uint8)
  reconstructed = raw[:, None] + np.array([100, 200], np.uint8).reshape(1, 2, 1, 1, 1)
  pixels = _pixels(figures.reconstruction_grid(raw, reconstructed))
  opaque = pixels[..., 3] == 255
  # Single gaps between columns; rows: the raw one alone, its two re-generations together.
  tops = np.flatnonzero(np.diff(np.r_[0, opaque[:, 0].astype(int)]) == 1)
  lefts = np.flatnonzero(np.diff(np.r_[0, opaque[0].astype(int)]) == 1)
  assert (len(tops), len(lefts)) == (6, 8)
  values = pixels[np.ix_(tops, lefts)][..., 0]
  first = np.arange(8)
  np.testing.assert_array_equal(values[:3], [first, first + 100, first + 200])
  np.testing.assert_array_equal(values[3:, :2], [[8, 9], [108, 109], [208, 209]])
  assert tops[1] - tops[0] > tops[2] - tops[1]
