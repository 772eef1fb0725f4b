"""The ROC of one attack, from the scores that a run or an audit of a record left."""

import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image
from report.report_example import with_predictors
from tables.runs_example import real, write_record, write_run

from diffence_jax import metrics
from diffence_jax.audit.pool import Pool
from diffence_jax.cli.main import run as command
from diffence_jax.metrics import Estimate
from diffence_jax.report import write_scores
from diffence_jax.report.scores_csv import write_score_lines
from diffence_jax.tables.roc_plot import draw_roc, read_roc

_NUM = 48


def _scores():
  """Scores of 96 samples, half of them known: of those who are not, and of all together."""
  draw = np.random.default_rng(0)
  is_member = np.arange(2 * _NUM) % 2 == 0
  is_known = np.arange(2 * _NUM) >= _NUM
  scores = draw.normal(size=2 * _NUM) + is_member
  labels = np.zeros(2 * _NUM, int)
  pool = Pool(np.arange(2 * _NUM), labels, is_member, is_known, np.zeros(2 * _NUM, bool))
  return pool, scores


def _with_auc(results, auc, attack="loss"):
  """The results where this attack, with one threshold, has this AUC on every predictor."""

  def change(row):
    attacks = tuple(
      one._replace(auc=Estimate(auc, auc - 0.1, auc + 0.1))
      if (one.name, one.threshold) == (attack, "global")
      else one
      for one in row.attacks
    )
    return dataclasses.replace(row, attacks=attacks)

  return with_predictors(results, change)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
  """A run with scores, and the ROC of its target samples."""
  pool, scores = _scores()
  target = ~pool.is_known
  roc = metrics.roc(scores[target & pool.is_member], scores[target & ~pool.is_member])
  folder = write_run(tmp_path_factory.mktemp("roc") / "run", _with_auc(real(), roc.auc))
  write_scores(
    pool,
    [
      ("undefended", "nn", -scores),
      ("undefended", "loss", scores),
      ("average", "loss", scores),
    ],
    folder / "scores.csv",
  )
  return folder, roc


def test_the_roc_is_that_of_the_target_samples(scored):
  folder, roc = scored
  for predictor in (None, "average"):
    shown = read_roc(folder, "loss", predictor)
    np.testing.assert_array_equal(shown.roc.fpr, roc.fpr)
    np.testing.assert_array_equal(shown.roc.tpr, roc.tpr)
    assert shown.row.auc.value == roc.auc and shown.row.threshold == "global"
  assert f"{shown.roc.auc:.3f}" in shown.summary and "24 members" in shown.summary


def test_with_the_published_protocol_it_is_that_of_all_samples(tmp_path):
  pool, scores = _scores()
  roc = metrics.roc(scores[pool.is_member], scores[~pool.is_member])
  folder = write_run(tmp_path / "run", _with_auc(real(protocol="paper"), roc.auc))
  write_scores(pool, [("undefended", "loss", scores)], folder / "scores.csv")
  assert read_roc(folder, "loss").roc.num_members == _NUM


def test_a_record_has_a_roc_too(tmp_path):
  pool, scores = _scores()
  roc = metrics.roc(scores[pool.is_member], scores[~pool.is_member])
  rows = _with_auc(real(), roc.auc).predictors
  folder = write_record(tmp_path / "record", predictors=rows)
  samples = [(i, 0, int(m), 0, "") for i, m in enumerate(pool.is_member)]
  columns = ("id", "label", "is_member", "is_known", "group", "classifier", "attack", "score")
  write_score_lines(columns, samples, [("undefended", "loss", scores)], folder / "examples.csv")
  np.testing.assert_array_equal(read_roc(folder, "loss").roc.tpr, roc.tpr)


def test_files_are_whole_and_the_same_every_time(scored, tmp_path):
  folder, _ = scored
  for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
    path = tmp_path / f"roc.{kind}"
    arguments = ["diffence", "plot", str(folder), "--attack=loss", f"--output={path}"]
    assert command(arguments) == 0
    assert path.read_bytes().startswith(start)
    assert path.read_bytes() == draw_roc(read_roc(folder, "loss"), kind)
  assert Image.open(io.BytesIO((tmp_path / "roc.png").read_bytes())).width >= 840
  svg = (tmp_path / "roc.svg").read_text()
  # In pixels, where the plot is shown 420 of them wide.
  width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])
  sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)]
  assert sizes and min(sizes) * 420 / width >= 11
  for label in ("loss", "guessing", "95% interval at each rate"):
    assert f">{label}<" in svg


def test_the_band_is_the_tables_interval(scored, monkeypatch):
  shown, drawn = read_roc(scored[0], "loss"), []
  monkeypatch.setattr(
    "matplotlib.axes.Axes.fill_between",
    lambda axes, limits, low, high, **_: drawn.append((limits, low, high)),
  )
  draw_roc(shown, "svg")
  ((limits, low, high),) = drawn
  at = len(limits) // 2
  rate = shown.roc.tpr_at_fpr(limits[at])
  assert (low[at], high[at]) == (max(rate.low, 1 / 24), rate.high)


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    (["--attack=los", "--output=a.svg"], "did you mean 'loss'"),
    (["--attack=loss", "--predictor=avrage", "--output=a.svg"], "did you mean 'average'"),
    (["--attack=loss", "--output=a.gif"], ".png, .svg or .pdf"),
    (["--attack=loss", "--output=nowhere/a.svg"], "there is no folder"),
    (["--attack=nn", "--output=a.svg"], "is not of these results"),
    (["--attack=entropy", "--output=a.svg"], "has no scores of entropy"),
  ],
)
def test_bad_input_is_refused_in_a_line(
  scored, arguments, expected, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  assert command(["diffence", "plot", str(scored[0]), *arguments]) == 2
  error = capsys.readouterr().err
  assert expected in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_scores_that_lack_or_are_damaged_are_refused(scored, tmp_path):
  folder = write_run(tmp_path / "run")
  with pytest.raises(FileNotFoundError, match=r"scores\.csv"):
    read_roc(folder, "loss")
  text = (scored[0] / "scores.csv").read_text()
  for content in (text.replace("score", "points", 1), text[:-30], text + "1,0,1,target\n"):
    (folder / "scores.csv").write_text(content)
    with pytest.raises(ValueError, match=r"scores\.csv"):
      read_roc(folder, "loss")
