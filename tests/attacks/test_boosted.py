"""Trees over attacks: what they are trained on, put together by hand, and what they gain."""

import numpy as np
import pytest
import scipy.stats
from sklearn.ensemble import HistGradientBoostingClassifier

from diffence_jax import metrics
from diffence_jax.attacks import ATTACKS, View, ensemble_of, run_attack
from diffence_jax.attacks.boosted import MEMBERS, attack_boosted

NUM, NUM_CLASSES = 300, 4


def make_view(seed, num_models, leak, num=NUM, change=None):
  """Members' labels are surer by `leak`. Models come in pairs, each with the other's samples.

  Returns:
    The view, and whom the target was trained with bool[N]; `change` are samples whose answers
    by the target are others.
  """
  rng = np.random.default_rng(seed)
  first = rng.permuted(np.repeat(np.arange(num)[None] < num // 2, num_models // 2, 0), axis=1)
  membership = np.stack([first, ~first], axis=1).reshape(num_models, num)
  member, labels = rng.random(num) < 0.5, rng.integers(0, NUM_CLASSES, num)
  hard = rng.normal(2.0, 1.5, num)

  def answers(inside):
    logits = rng.normal(0, 1, (*inside.shape, 2, NUM_CLASSES))
    signal = (hard + leak * inside)[..., None, None]
    return (logits + signal * np.eye(NUM_CLASSES)[labels][:, None]).astype(np.float32)

  logits, shadows = answers(member), answers(membership)
  if change is not None:
    logits[change] = -logits[change]
  view = View(
    logits,
    labels,
    is_known=np.arange(num) % 3 == 0,
    is_member=member,
    shadows=ensemble_of(shadows, membership, labels),
  )
  return view, member


def auc(scores, member):
  return metrics.roc(scores[member], scores[~member]).auc


def test_scores_are_those_of_trees_trained_by_hand():
  view, _ = make_view(0, 8, 1.0)
  opened = view.opened(("shadows", "known"))
  features, members = [], []
  for s in (0, 2, 5):  # 8 / 3 apart
    others = [m for m in range(8) if m // 2 != s // 2]
    shadow_logits = np.stack([opened.shadow_logits[m] for m in others])
    there = View(
      opened.shadow_logits[s],
      view.labels,
      is_known=opened.is_known,
      is_member=opened.membership[s],
      shadows=ensemble_of(shadow_logits, opened.membership[others], view.labels),
    )
    features.append([run_attack(ATTACKS.choose(name), there) for name in MEMBERS])
    members.append(opened.membership[s])
  trees = HistGradientBoostingClassifier(
    max_leaf_nodes=15,
    l2_regularization=1.0,
    monotonic_cst=[1] * len(MEMBERS),
    early_stopping=False,
  )
  trees.fit(np.concatenate(features, axis=1).T, np.concatenate(members))
  asked = np.stack([run_attack(ATTACKS.choose(name), view) for name in MEMBERS], axis=-1)
  expected = trees.decision_function(asked)
  scores = run_attack(ATTACKS.choose("boosted", {"num_targets": 3}), view)
  np.testing.assert_allclose(scores, expected, atol=2e-6)
  # Leaves tie; scores do not.
  assert len(np.unique(expected)) < len(np.unique(scores)) == NUM


def test_what_is_asked_of_the_target_trains_nothing():
  """Other answers to some of the samples that nobody knows change the scores of those alone."""
  change = np.arange(NUM) % 6 == 1
  scores, others = (
    run_attack(ATTACKS.choose("boosted"), make_view(1, 8, 1.0, change=rows)[0])
    for rows in (None, change)
  )
  np.testing.assert_array_equal(scores[~change], others[~change])
  assert np.mean(scores[change] != others[change]) > 0.9


@pytest.mark.parametrize("num_targets, expected", [(1, 1), (4, 4), (16, 6)])
def test_as_many_models_are_attacked_as_asked_for_at_most_all(
  monkeypatch, num_targets, expected
):
  seen = []

  def spied(choice, view):
    seen.append(len(view.opened(("shadows",)).membership))
    return run_attack(choice, view)

  monkeypatch.setattr("diffence_jax.attacks.boosted.run_attack", spied)
  view, _ = make_view(2, 6, 1.0)
  attack_boosted(view.opened(("shadows", "known")), num_targets=num_targets)
  # Each by all but itself and its partner; the target by all.
  assert seen == [4] * expected * len(MEMBERS) + [6] * len(MEMBERS)


def test_it_is_about_as_good_as_the_best_of_what_it_sees():
  """In AUC, over eight seeds, 0.01 at most below the attack that is best on the whole."""
  found = {name: [] for name in ("boosted", *MEMBERS)}
  for seed in range(8):
    view, member = make_view(10 + seed, 16, 1.0)
    for name, values in found.items():
      values.append(auc(run_attack(ATTACKS.choose(name), view), member))
  means = {name: np.mean(values) for name, values in found.items()}
  assert means["boosted"] > max(means[name] for name in MEMBERS) - 0.01 > 0.6


def test_without_a_leak_it_guesses():
  aucs = [
    auc(run_attack(ATTACKS.choose("boosted"), view), member)
    for view, member in (make_view(20 + seed, 8, 0.0) for seed in range(8))
  ]
  # Each has a standard error of about sqrt((N + 1) / 12) / (N / 2).
  error = np.sqrt((NUM + 1) / 12) / (NUM / 2) / np.sqrt(len(aucs))
  assert abs(np.mean(aucs) - 0.5) < scipy.stats.norm.ppf(0.9995) * error


def test_mistakes_are_named():
  with pytest.raises(ValueError, match=r"attacks\.boosted\.num_targets is 0; expected a whole"):
    ATTACKS.choose("boosted", {"num_targets": 0})
