"""`protocol="paper"` at the paper's size, where its limits fall on whole samples and
confident predictions round to 1: neither shows in the `selection` fixture.
"""

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from attacks.grouped import pool_of, view_of

from diffence_jax import metrics
from diffence_jax.attacks import ATTACKS, published, run_attack
from diffence_jax.attacks.attack import declaration_of
from diffence_jax.audit.judge import judge

THRESHOLDS = ("loss", "confidence", "entropy", "modified_entropy")


def predictions(seed, mean, wrong):
  """1,000 float32 answers of an overfit classifier."""
  rng, num = np.random.default_rng(seed), 1000
  labels = rng.integers(0, 10, num)
  logits = rng.normal(0, 1, (num, 10))
  called = np.where(rng.random(num) < wrong, rng.integers(0, 10, num), labels)
  logits[np.arange(num), called] += np.maximum(rng.normal(mean, 5, num), 0.5)
  return logits.astype(np.float32), labels


def slow_scores(name, logits, labels):
  """Sample by sample, from float32 probabilities."""
  scores = []
  for row, y in zip(scipy.special.softmax(logits, axis=-1), labels, strict=True):
    log = lambda q: np.log(np.maximum(q, np.float32(1e-30)))
    others = np.delete(row, y)
    scores.append(
      {
        "loss": np.log(np.float64(row[y])),
        "confidence": row[y],
        "entropy": np.sum(row * log(row)),
        "modified_entropy": (1 - row[y]) * log(row[y]) + np.sum(others * log(1 - others)),
      }[name]
    )
  return np.array(scores, np.float64)


@pytest.fixture(scope="module")
def overfit():
  members = [predictions(seed, 18.0, 0.0) for seed in (0, 1)]
  nonmembers = [predictions(seed, 13.0, 0.15) for seed in (2, 3)]
  return [*members, *nonmembers]


def judged(name, groups, protocol):
  """The row and the ROC of an attack with one threshold for all classes."""
  choice = ATTACKS.choose(name)
  scores = run_attack(choice, view_of(groups), published=protocol == "paper")
  return judge(name, declaration_of(name), scores, pool_of(groups), protocol=protocol)[0]


@pytest.mark.parametrize("name", THRESHOLDS)
def test_scores_are_the_slow_reference(overfit, name):
  for group in overfit:
    scores = getattr(published, name)(*group)
    np.testing.assert_allclose(scores, slow_scores(name, *group), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("limit", [0.001, 0.01])
@pytest.mark.parametrize("name", ["loss", "confidence"])
def test_figures_are_scikit_learns_as_the_published_code_reads_them(overfit, name, limit):
  row, roc = judged(name, overfit, "paper")
  assert (row.name, row.threshold) == (name, "global")
  truth = np.repeat([1, 1, 0, 0], 1000)
  scores = np.concatenate([slow_scores(name, *group) for group in overfit])
  fpr, tpr, _ = sklearn.metrics.roc_curve(truth, scores)
  assert roc.auc == pytest.approx(sklearn.metrics.auc(fpr, tpr), abs=1e-9)
  assert roc.accuracy == pytest.approx(np.max(1 - (fpr + 1 - tpr) / 2), abs=1e-9)
  strict = roc.tpr_at_fpr(limit, strict=True), roc.tnr_at_fnr(limit, strict=True)
  assert strict[0] in row.tpr_at_fpr and strict[1] in row.tnr_at_fnr
  assert strict[0].value == pytest.approx(tpr[fpr < limit][-1], abs=1e-9)
  assert strict[1].value == pytest.approx((1 - fpr)[1 - tpr < limit][0], abs=1e-9)


def test_ties_at_one_are_why_the_published_auc_is_another(overfit):
  # The same samples on both sides of the protocols: only the scores differ.
  same = [*[overfit[0]] * 2, *[overfit[2]] * 2]
  ours, theirs = (judged("confidence", same, protocol)[1] for protocol in ("disjoint", "paper"))
  assert ours.auc > theirs.auc + 0.005


def test_a_strict_limit_is_not_reached():
  curve = metrics.roc(np.arange(1000.0) + 0.5, np.arange(1000.0))
  assert curve.tpr_at_fpr(0.01).count == 10
  assert curve.tpr_at_fpr(0.01, strict=True).count == 9
  assert curve.tnr_at_fnr(0.01, strict=True).count == 9
  with pytest.raises(ValueError, match="No rate is below 0"):
    curve.tpr_at_fpr(0.0, strict=True)
