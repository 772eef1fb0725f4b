"""The README's Python runs as it stands there."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def run_example(number):
  """Runs the README's example of this number and returns the names it leaves."""
  names = {}
  exec(re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)[number], names)
  return names


def test_the_three_lines_protect_a_foreign_classifier():
  names = run_example(0)
  assert names["logits"].shape == (5, 10)
  images = np.full((5, 8, 8, 1), 0.5, np.float32)
  labels = np.argmax(names["predict"](None, images), axis=-1)
  np.testing.assert_array_equal(np.argmax(names["logits"], axis=-1), labels)


def test_logits_of_ones_own_can_be_attacked(capsys):
  # phi is N(2, 1) for members and N(0, 1) for others: an AUC of Phi(2 / sqrt(2)) = 0.92.
  low, high = run_example(1)["roc"].auc_interval
  assert low < 0.921 < high
  assert capsys.readouterr().out
