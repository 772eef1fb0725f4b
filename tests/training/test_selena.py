"""SELENA: who is left out of what, whose answers are averaged, and that it works as a whole."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import models, parallel
from diffence_jax.training import TrainSettings, train_classifier
from diffence_jax.training import classifier as training_of_classifier
from diffence_jax.training.ensemble import teach
from diffence_jax.training.registry import make_recipe
from diffence_jax.training.selena import left_out, soft_labels


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_example_is_left_out_of_exactly_so_many(data):
  num_teachers = data.draw(st.integers(2, 30))
  num_left_out = data.draw(st.integers(1, num_teachers - 1))
  num = data.draw(st.integers(1, 60))
  found = left_out(num, num_teachers, num_left_out, [data.draw(st.integers(0, 99)), 7])
  assert found.shape == (num_teachers, num)
  np.testing.assert_array_equal(found.sum(axis=0), num_left_out)


def test_who_is_left_out_is_even_and_unrelated():
  found = left_out(4000, 25, 10, [0])
  # A teacher sees 2,400 of 4,000, with a standard deviation of 31; five of them.
  assert np.abs(found.sum(axis=1) - 1600).max() < 155
  # Drawn without replacement, two teachers leave out the same with a correlation of -1/24.
  correlation = np.corrcoef(found.astype(float))[np.triu_indices(25, 1)]
  assert np.abs(correlation + 1 / 24).max() < 5 / np.sqrt(4000)


def test_soft_labels_are_the_mean_of_those_that_did_not_see():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(6, 9, 4)).astype(np.float32)
  membership = ~left_out(9, 6, 2, [3])
  found = soft_labels(logits, membership)
  for example in range(9):
    own = [logits[t, example] for t in range(6) if not membership[t, example]]
    assert len(own) == 2
    p = [np.exp(row) / np.exp(row).sum() for row in own]
    np.testing.assert_allclose(found[example], np.mean(p, axis=0), rtol=1e-5)


def test_labels_that_are_given_are_learnt_and_no_teacher_is_trained(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  members = {
    "images": rng.integers(0, 256, (30, 8, 8, 1)).astype(np.uint8),
    "labels": rng.integers(0, 3, 30).astype(np.int32),
  }
  module = models.make_classifier("small_resnet", num_classes=3, width=4, stages=(1,))
  settings = TrainSettings(30, 2, 10, 1e-2, 0.0)
  recipe = make_recipe("selena", module, settings, num_teachers=5, num_left_out=2)
  mesh = parallel.batch_mesh()

  def train(name, **given):
    return train_classifier(
      recipe,
      members,
      checkpoint_every=100,
      seed=0,
      mesh=mesh,
      directory=tmp_path / name,
      **given,
    )

  everyone = np.ones((1, 30), bool)
  (labels,) = teach(recipe.teachers, members, everyone, names=["classifier"], seed=0, mesh=mesh)
  np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)
  whole = train("whole")
  monkeypatch.setattr(training_of_classifier, "teach", None)
  jax.tree.map(np.testing.assert_array_equal, train("given", soft_labels=labels), whole)
