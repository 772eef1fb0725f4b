"""docs/report.md draws a log-log ROC from a file of scores in five lines, which run here."""

import re
import stat
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

import diffence_jax as dj
from diffence_jax import metrics

PAGE = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
# By the file that scores are read from.
EXAMPLES = {
  re.search(r'\("(\w+\.\w+)"\)', code)[1]: code
  for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
}


def drawn(code, folder, monkeypatch):
  """Runs an example in a folder: the curve's points, and its figure's axes."""
  monkeypatch.chdir(folder)
  plt.close("all")
  exec(code, {})
  axes = plt.gca()
  (curve,) = axes.get_lines()
  # All of it is shown but what is at zero.
  shown = axes.get_xlim(), axes.get_ylim()
  for rates, (low, high) in zip((curve.get_xdata(), curve.get_ydata()), shown, strict=True):
    assert 0.1 * rates[rates > 0.0].min() < low < rates[rates > 0.0].min() and high >= 1.0
  return curve.get_xdata(), curve.get_ydata(), axes


@pytest.fixture(autouse=True)
def closed():
  yield
  plt.close("all")


def test_every_example_is_five_lines_at_most():
  assert set(EXAMPLES) == {"scores.csv", "scores_in_turn.npz"}
  for code in EXAMPLES.values():
    assert len([line for line in code.splitlines() if line.strip()]) <= 5 and ";" not in code


@pytest.mark.parametrize("file", EXAMPLES)
def test_the_roc_is_the_one_of_the_report(file, fresh_run, monkeypatch):
  fpr, tpr, axes = drawn(EXAMPLES[file], fresh_run.workdir, monkeypatch)
  assert axes.get_xscale() == axes.get_yscale() == "log"
  results = fresh_run.results
  if file == "scores.csv":
    (auc,) = (
      attack.auc.value
      for attack in results.undefended.attacks
      if (attack.name, attack.threshold) == ("loss", "global")
    )
  else:
    (auc,) = (
      row.auc.value
      for row in results.shadow.samples
      if (row.predictor, row.attack, row.queries) == ("undefended", "lira_online", 1)
    )
  assert np.trapezoid(tpr, fpr) == pytest.approx(auc, abs=1e-12)
  assert (tuple(fpr[[0, -1]]), tuple(tpr[[0, -1]])) == ((0.0, 1.0), (0.0, 1.0))


def test_the_scores_in_turn_of_a_run_are_as_documented(fresh_run):
  path = fresh_run.workdir / "scores_in_turn.npz"
  assert stat.S_IMODE(path.stat().st_mode) == 0o600
  # Beside the artifact's and the report's it takes no room of its own.
  places = (*fresh_run.workdir.glob("*/*/scores_in_turn.npz"), path)
  assert len(places) == 3 and all(place.samefile(path) for place in places)
  rows = dict(re.findall(r"^\| `([\w/]+)` \| `(\w+\[[\w,]+\])` \|", PAGE, flags=re.MULTILINE))
  of_attacks = rows.pop("PREDICTOR/ATTACK")
  with np.load(path, allow_pickle=False) as run:
    sizes = dict(zip("SN", run["membership"].shape, strict=True))
    assert [*rows, *(name for name in run.files if "/" in name)] == run.files
    for name in run.files:
      kind, shape = rows.get(name, of_attacks).rstrip("]").split("[")
      assert run[name].dtype.name.startswith(kind), name
      assert run[name].shape == tuple(sizes[axis] for axis in shape.split(",")), name


def test_the_scores_in_turn_of_a_run_have_the_aucs_of_its_results(fresh_run):
  shadow = fresh_run.results.shadow
  expected = {
    f"{row.predictor}/{row.attack}": row.auc.value
    for row in (*shadow.samples, *shadow.label_floor)
    if row.queries == 1
  }
  with np.load(fresh_run.workdir / "scores_in_turn.npz", allow_pickle=False) as run:
    assert {name for name in run.files if "/" in name} == set(expected)
    reported, membership = run["is_reported"], run["membership"]
    assert np.all(reported == (~run["is_known"] & ~run["is_canary"])[None])
    assert run["is_canary"].sum() == shadow.num_canaries > 0
    partners = run["pairs"].reshape(-1, 2)
    assert np.all(partners[:, 0] == partners[:, 1])
    assert np.all(membership[::2] != membership[1::2])
    sides = reported & membership, reported & ~membership
    for name, auc in expected.items():
      pooled = metrics.roc(*(run[name][side] for side in sides))
      assert pooled.auc == pytest.approx(auc, abs=1e-12), name


def test_a_finished_run_has_its_scores_in_turn_by_policy(fresh_run):
  found = dj.load_run(fresh_run.workdir, fresh_run.results.settings).scores_in_turn
  policies = {row.name: row.policy for row in fresh_run.results.predictors}
  assert list(found.by_policy) == [*policies.values(), "labels alone"]
  with np.load(fresh_run.workdir / "scores_in_turn.npz", allow_pickle=False) as run:
    for name in found._fields[:-1]:
      np.testing.assert_array_equal(getattr(found, name), run[name])
    for predictor, policy in policies.items():
      for attack, scores in found.by_policy[policy].items():
        np.testing.assert_array_equal(scores, run[f"{predictor}/{attack}"])
