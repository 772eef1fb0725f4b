"""The README's Python runs as it stands there."""

import re
from pathlib import Path

import jax
import numpy as np

import diffence_jax as dj
from diffence_jax.training import Recipe, TrainSettings
from diffence_jax.training.loop import take

README = Path(__file__).parents[1] / "README.md"


def run_example(word, **names):
  """Runs the README's one example with this word and returns the names it leaves."""
  examples = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
  (example,) = [own for own in examples if word in own]
  exec(example, names)
  return names


def test_the_three_lines_protect_a_foreign_classifier():
  names = run_example("The three lines")
  assert names["logits"].shape == (5, 10)
  images = np.full((5, 8, 8, 1), 0.5, np.float32)
  labels = np.argmax(names["predict"](None, images), axis=-1)
  np.testing.assert_array_equal(np.argmax(names["logits"], axis=-1), labels)


def test_the_public_imagenet_model_is_used_as_published():
  seen = []

  def denoise(x, t):
    seen.append(x.shape[1:])
    return 0.1 * x

  predict = jax.jit(lambda key, images: images.reshape(images.shape[0], -1)[:, :10])
  protected = run_example("ddim5", dj=dj, predict=predict, denoise=denoise)["protected"]
  images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
  labels = np.argmax(predict(None, images), axis=-1)
  np.testing.assert_array_equal(
    np.argmax(protected(jax.random.key(1), images), axis=-1), labels
  )
  assert set(seen) == {(256, 256, 3)}


def test_defenses_of_ones_own_are_of_the_two_kinds():
  module = dj.models.make_classifier("small_resnet", num_classes=3, width=4, stages=(1,))
  settings = TrainSettings(20, 2, 5, 1e-3, 0.0)
  recipe = run_example("small_logits")["small_logits"](module, settings, weight=0.5)
  assert isinstance(recipe, Recipe) and len(recipe.schedule) == 8
  state = recipe.init(jax.random.key(0), (8, 8, 1))
  members = {"images": np.zeros((5, 8, 8, 1), np.uint8), "labels": np.zeros(5, np.int32)}
  batch = {"members": take(members, np.arange(5))}
  with jax.numpy_dtype_promotion("standard"):
    _, metrics = recipe.kinds["train"].step(state, batch, jax.random.key(0))
  assert np.isfinite(metrics["loss"])
  logits = np.full((4, 3), 2.0, np.float32)
  finish = run_example("round_off")["round_off"](None, logits, logits, decimals=0)
  np.testing.assert_array_equal(finish(logits + 0.3), logits)


def test_logits_of_ones_own_can_be_attacked(capsys):
  # phi is N(2, 1) for members and N(0, 1) for others: an AUC of Phi(2 / sqrt(2)) = 0.92.
  low, high = run_example("shadow_phi")["roc"].auc_interval
  assert low < 0.921 < high
  assert capsys.readouterr().out
