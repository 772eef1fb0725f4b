"""The table of the frontier, and that of what was chosen: their label floor."""

from audit.test_tune import row_of

from diffence_jax.metrics import Estimate
from diffence_jax.report.frontier import choice_lines, format_frontier, label_floor

NOTE = "the label floor: highest AUC of the same attacks"


def row_with(name, auc, policy="blend"):
  around = lambda value: Estimate(value, value - 0.02, value + 0.02)
  row = row_of(name, around(auc), around(0.3), around(0.9))
  return type(row)(**{**vars(row), "policy": policy})


BLEND, CONSTANT = row_with("blend 0.5", 0.61), row_with("labels", 0.552, "constant")


def test_the_row_of_the_label_alone_is_called_the_floor():
  words = " ".join(format_frontier([BLEND, CONSTANT], 80).split())
  assert f"labels {NOTE}" in words and "0.552" in words
  assert NOTE not in " ".join(format_frontier([BLEND], 80).split())


def test_what_is_chosen_stands_beside_the_floor():
  assert label_floor([BLEND, CONSTANT]) is CONSTANT and label_floor([BLEND]) is None
  lines = choice_lines(BLEND, row_with("blend 0.5", 0.63), CONSTANT, 200)
  figures = [line.split("  ")[0] for line in lines if line[:1].isalpha()]
  assert figures[-4:] == ["known", "target", "target, labels alone", "labels alone"]
  (line,) = (line for line in lines if line.startswith("target, labels alone"))
  assert line.count("0.552") == 3
  assert f"labels alone {NOTE}" in " ".join(" ".join(lines).split())
  assert "labels alone" not in "".join(choice_lines(BLEND, BLEND))
  narrow = choice_lines(BLEND, BLEND, CONSTANT, 80)
  assert max(map(len, narrow)) <= 80
