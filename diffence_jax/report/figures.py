"""The plots of the report, as SVG or PNG bytes that depend on nothing but their input."""

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffence_jax.batching import to_bytes

# Text and axes have this one colour, for whoever embeds a figure in a dark page to replace.
INK = "#24303c"

# Okabe and Ito's colours, told apart by the colour-blind; undefended stands out from the rest.
_COLORS = ("#d55e00", "#0072b2", "#009e73", "#56b4e9", "#cc79a7", "#e69f00", "#7f7f7f")
_DASHES = ("-", "-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
_MEMBERS, _NONMEMBERS = "#e69f00", "#4a9fd8"
_WIDTH = 5.6
_NUM_BINS = 60
_MAX_COLUMNS = 8
_MIN_TILE = 48
TITLE = {"fontsize": 10.5, "loc": "left"}
# What figures are written as, and what such files would tell of the program and the time.
KINDS = {
  "svg": ("Creator", "Date", "Format", "Type"),
  "png": ("Software",),
  "pdf": ("Creator", "Producer", "CreationDate"),
}


def roc_curves(
  curves: Mapping[str, tuple[np.ndarray, np.ndarray]], num_members: int, num_nonmembers: int
) -> bytes:
  """ROC curves on logarithmic axes, which end at one sample: less cannot be measured.

  Args:
    curves: predictor to false and true positive rates f64[P], both rising from 0 to 1.
    num_members: samples behind the true positive rates.
    num_nonmembers: samples behind the false positive rates.

  Returns:
    An SVG image.
  """

  def draw(figure):
    axes = figure.add_subplot()
    left, bottom = 1.0 / num_nonmembers, 1.0 / num_members
    start_roc(axes, left, bottom)
    for (name, (fpr, tpr)), style in zip(curves.items(), styles(), strict=False):
      # A rate of zero has no place on a logarithmic axis; it is drawn at the edge.
      fpr, tpr = np.maximum(fpr, left), np.maximum(tpr, bottom)
      axes.plot(fpr, tpr, drawstyle="steps-post", linewidth=1.8, label=plain(name), **style)
    axes.legend(loc="lower right", frameon=False)

  return draw_svg(draw, 4.6)


def start_roc(axes, left: float, bottom: float) -> None:
  """Draws the line of guessing on logarithmic axes from (left, bottom) to 1."""
  diagonal = np.geomspace(min(left, bottom), 1.0, 2)
  axes.plot(diagonal, diagonal, color=INK, alpha=0.5, linewidth=1, label="guessing")
  axes.set(xscale="log", yscale="log", xlim=(left, 1), ylim=(bottom, 1))
  axes.set_xlabel("false positive rate (non-members taken for members)")
  axes.set_ylabel("true positive rate (members found)")
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(as_percent)
    axis.set_minor_formatter(lambda *_: "")
  axes.grid(which="major", color=INK, alpha=0.15)


def phi_histograms(
  phis: Mapping[str, tuple[np.ndarray, np.ndarray]],
  intervals: Mapping[str, Sequence[float] | None],
) -> bytes:
  """Confidences of members and of non-members, a panel a predictor, over the same bins.

  The paper's figures 3 and 4.

  Args:
    phis: predictor to the scaled logits f[N] of members and of non-members.
    intervals: predictor to the interval (lo, hi) that its selection aims at, or None.

  Returns:
    An SVG image.
  """
  phis = {name: [np.asarray(p, np.float64) for p in pair] for name, pair in phis.items()}
  everything = np.concatenate([p for pair in phis.values() for p in pair])
  finite = everything[np.isfinite(everything)]
  low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
  # A probability of one has an infinite phi: it goes to the last bin.
  bins = np.linspace(low - 0.05, high + 0.05, _NUM_BINS + 1)

  def draw(figure):
    panels = figure.subplots(len(phis), sharex=True, squeeze=False)[:, 0]
    for axes, (name, pair) in zip(panels, phis.items(), strict=True):
      shown = zip(pair, ("members", "non-members"), (_MEMBERS, _NONMEMBERS), strict=True)
      for phi, label, color in shown:
        counts, _ = np.histogram(np.clip(phi, low, high), bins)
        axes.stairs(counts / phi.size, bins, fill=True, color=color, alpha=0.5, label=label)
        axes.stairs(counts / phi.size, bins, color=color, linewidth=1)
      if intervals[name] is not None:
        ends = np.clip(intervals[name], bins[0], bins[-1])
        axes.axvspan(*ends, color=INK, alpha=0.08, linewidth=0, label="interval")
      axes.set_title(plain(name), **TITLE)
      axes.set_xlim(bins[0], bins[-1])
      axes.yaxis.set_major_formatter(as_percent)
      axes.locator_params(axis="y", nbins=3)
    handles = {
      label: handle
      for axes in panels
      for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
      handles.values(), handles.keys(), loc="outside upper right", ncols=3, frameon=False
    )
    panels[-1].set_xlabel("phi = log(p / (1 - p)) of the predicted class")
    figure.supylabel("share of samples", fontsize=10)

  return draw_svg(draw, 0.9 + 1.75 * len(phis))


def attack_aucs(
  aucs: Mapping[str, Any],
  floors: Mapping[str, float],
  label_floors: Mapping[str, float] | None = None,
) -> bytes:
  """The highest attack AUC of every predictor, its 95% interval, and both floors.

  Args:
    aucs: predictor to an estimate: value, low and high.
    floors: predictor to the AUC of its gap attack.
    label_floors: predictor to its label floor, of those that have one; None where none has.

  Returns:
    An SVG image.
  """

  def draw(figure):
    axes = figure.add_subplot()
    rows = zip(aucs.items(), styles(), strict=False)
    for position, ((name, auc), style) in enumerate(rows):
      ends = [[auc.value - auc.low], [auc.high - auc.value]]
      axes.errorbar(auc.value, position, xerr=ends, fmt="o", capsize=4, color=style["color"])
      axes.plot(floors[name], position, "|", color=INK, markersize=18, markeredgewidth=2)
      if name in (label_floors or {}):
        axes.plot(label_floors[name], position, "x", color=INK, markersize=8)
    # Above one another in no place: only for the legend.
    axes.plot([], [], "|", color=INK, markersize=12, markeredgewidth=2, label="gap floor")
    if label_floors:
      axes.plot([], [], "x", color=INK, markersize=8, label="label floor")
    axes.axvline(0.5, color=INK, alpha=0.5, linewidth=1, linestyle=":", label="guessing")
    axes.set_yticks(range(len(aucs)), [plain(name) for name in aucs])
    axes.set_ylim(len(aucs) - 0.5, -0.5)
    axes.set_xlabel("highest attack AUC, 95% interval")
    axes.grid(axis="x", color=INK, alpha=0.15)
    figure.legend(loc="outside upper right", ncols=3, frameon=False)

  return draw_svg(draw, 1.3 + 0.45 * len(aucs))


def reconstruction_grid(raw: np.ndarray, reconstructed: np.ndarray) -> bytes:
  """Images in a row, and below each of them what the diffusion model makes of it.

  Args:
    raw: u8 or f32 in [0, 1], [G,H,W,C].
    reconstructed: u8 or f32 in [0, 1], [G,R,H,W,C].

  Returns:
    A PNG image.
  """
  strips = []
  for start in range(0, len(raw), _MAX_COLUMNS):
    stop = start + _MAX_COLUMNS
    strips += [raw[None, start:stop], np.swapaxes(reconstructed[start:stop], 0, 1)]
  return _mosaic(strips)


def sample_grid(samples: np.ndarray) -> bytes:
  """Images in rows.

  Args:
    samples: u8 or f32 in [0, 1], [P,H,W,C].

  Returns:
    A PNG image.
  """
  starts = range(0, len(samples), _MAX_COLUMNS)
  return _mosaic([samples[None, start : start + _MAX_COLUMNS] for start in starts], margin=1)


def _mosaic(strips: Sequence[np.ndarray], margin: int = 3) -> bytes:
  """Strips of rows of images, one below the other, on a transparent ground.

  Args:
    strips: u8 or f32 in [0, 1], [rows,columns,H,W,C]; the first has the most columns.
    margin: gaps between two strips, where there is one between two rows.

  Returns:
    A PNG image; small images are enlarged by a whole factor.
  """
  from PIL import Image

  columns, height, width = strips[0].shape[1:4]
  factor = max(1, -(-_MIN_TILE // max(height, width)))
  gap = max(2, factor * max(height, width) // 16)
  height, width = factor * height + gap, factor * width + gap
  total = height * sum(map(len, strips)) + gap * (margin - 1) * (len(strips) - 1)
  canvas = np.zeros((total - gap, width * columns - gap, 4), np.uint8)
  top = 0
  for strip in strips:
    for row in strip:
      for j, image in enumerate(row):
        place = canvas[top:, j * width :][: height - gap, : width - gap]
        place[..., :3] = _bytes(image).repeat(factor, axis=0).repeat(factor, axis=1)
        place[..., 3] = 255
      top += height
    top += gap * (margin - 1)
  buffer = io.BytesIO()
  Image.fromarray(canvas).save(buffer, "PNG", optimize=True)
  return buffer.getvalue()


def _bytes(image):
  if image.dtype != np.uint8:
    image = to_bytes(np.clip(image, 0.0, 1.0))
  # One channel is spread over red, green and blue.
  return image if image.shape[-1] == 3 else image[..., :1]


def as_percent(value: float, _: int | None = None) -> str:
  """A share as the label of a tick."""
  return f"{100 * value:g}%"


def draw_svg(draw, height: float) -> bytes:
  """What `draw(figure)` draws, for a page."""
  text = _drawn(draw, height, "svg", _settings(), transparent=True)
  # The prolog names an external document type, which no browser needs.
  return text[text.index(b"<svg") :]


def draw_file(draw, height: float, kind: str) -> bytes:
  """What `draw(figure)` draws, as a file of its own on a white ground.

  Args:
    draw: a function of a figure.
    height: in inches.
    kind: one of `KINDS`.

  Returns:
    The image; its text is at least 11 pixels high where it is shown 420 pixels wide.
  """
  return _drawn(draw, height, kind, _settings() | {"font.size": 11}, dpi=200)


def _drawn(draw, height, kind, settings, **saved):
  """The bytes, without the date and random ids that differ between runs."""
  import matplotlib
  from matplotlib.figure import Figure

  with matplotlib.rc_context(settings):
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    draw(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=dict.fromkeys(KINDS[kind]), **saved)
  return buffer.getvalue()


def _settings() -> dict[str, Any]:
  return {
    "svg.hashsalt": "diffence_jax",
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.usetex": False,
    "path.simplify": True,
  }


def styles():
  """Line styles without end, so that no number of predictors is too many."""
  for color, dashes in zip(itertools.cycle(_COLORS), itertools.cycle(_DASHES), strict=False):
    yield {"color": color, "linestyle": dashes}


def plain(text: str) -> str:
  """Text that matplotlib does not take for a formula."""
  return text.replace("$", r"\$")
