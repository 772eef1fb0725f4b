"""The README's Python runs as it stands there."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def test_the_three_lines_protect_a_foreign_classifier():
  (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
  names = {}
  exec(code, names)
  assert names["logits"].shape == (5, 10)
  images = np.full((5, 8, 8, 1), 0.5, np.float32)
  labels = np.argmax(names["predict"](None, images), axis=-1)
  np.testing.assert_array_equal(np.argmax(names["logits"], axis=-1), labels)
