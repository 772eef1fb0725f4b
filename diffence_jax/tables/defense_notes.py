"""How to read the table of defenses, and what it says in one sentence."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffence_jax.report.cells import (
  GAP_FLOOR_NOTE,
  LABEL_FLOOR_NOTE,
  interval,
  mark_notes,
  percent,
  relative_change,
)
from diffence_jax.report.table import LARGEST_MEANINGFUL_EPSILON
from diffence_jax.tables.defense_rows import COLUMNS, VERDICTS, average, estimate
from diffence_jax.tables.published import COSTS, SOURCE

PAPER = "  paper"


def signed(value, digits):
  # Adding zero turns a rounded -0.0 into 0.0.
  return f"{round(value, digits) + 0.0:+.{digits}f}"


def notes(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
  """How to read the tables: pairs of a term and its meaning."""
  return [
    *_of_figures(rows),
    *_of_marks(rows),
    *_of_floors(),
    *_of_accuracy(rows),
    *_of_times(),
    *_of_epsilon(rows),
    *_of_lines(rows),
  ]


def _of_figures(rows):
  """What figures are and their intervals: one thing for one seed, another for several."""
  counts = sorted({len(row["seeds"]) for row in rows})
  ends, differences = [], []
  if counts[0] == 1:
    ends.append("of one seed: its 95% interval")
    differences.append(
      "of one seed: the ends of both 95% intervals against each other, a conservative interval "
      "that includes 0 if they overlap"
    )
  if counts[-1] > 1:
    over = " or ".join(str(count) for count in counts if count > 1)
    ends.append(f"of {over} seeds: the least and the most of them, not a confidence interval")
    differences.append(
      f"of {over} seeds: mean of the paired differences with its 95% t-interval, which is wide "
      "for two or three"
    )
  yield (
    "highest",
    "over all attacks of a run, the strongest picked on the reported samples themselves, in "
    "the attacker's favour",
  )
  yield "[low, high]", "; ".join(ends)
  yield "+x% or -x%", "change relative to the same defense alone, of the means over seeds"
  yield "difference", "; ".join(differences)


def _of_floors():
  yield "gap floor", f"{GAP_FLOOR_NOTE}; of each defense's own labels"
  yield "label floor", LABEL_FLOOR_NOTE
  yield (
    "above",
    "highest attack AUC less the label floor, alone and behind Diffence; empty where labels "
    "were changed at any seed",
  )


def _of_marks(rows):
  """The marks of verdicts and of rates that there are."""
  verdicts = [column["verdict"] for _, _, column in _scenarios(rows)]
  for verdict, (mark, meaning) in VERDICTS.items():
    if mark and verdict in verdicts:
      yield mark, meaning
  yield from mark_notes(
    rate["enough"]
    for row in rows
    for column in row["columns"].values()
    for rate in column["highest_tpr_at_fpr"]
  )


def _of_accuracy(rows):
  """What a defense costs in accuracy, and where labels have changed."""
  yield (
    "accuracy delta",
    "test accuracy of the defense alone minus that of undefended, in percentage points, and "
    "the interval of that difference; where Diffence changes no label, the same behind it",
  )
  changed = [
    f"{row['title']}, {name}: {_label_changes([column])}, accuracy delta "
    f"{signed(100 * column['accuracy_delta']['value'], 2)} pp"
    for row in rows
    for name, column in row["columns"].items()
    if column["label_changes"]["value"]
  ]
  yield "labels changed", "; ".join(changed) or "none"


def _of_times():
  yield (
    "training",
    "by the clock, with compilation and whatever else ran meanwhile; empty where it was "
    "stopped and resumed, and not timed",
  )
  yield "inference", "by the clock too, compiled before"


def _of_epsilon(rows):
  """What the guarantees do not cover, if there are any."""
  spent = [row["epsilon"]["value"] for row in rows if row["epsilon"]]
  if not spent:
    return
  meaning = "of the classifier alone: Diffence's diffusion model and interval see members too"
  if max(spent) > LARGEST_MEANINGFUL_EPSILON:
    meaning += "; one above 10 promises nothing"
  yield "epsilon", meaning


def _of_lines(rows):
  """The lines that are not our figures of a defense."""
  if len(rows) > 1:
    yield "mean", f"of the {len(rows)} defenses above, undefended included"
  if any(row["published"] for row in rows):
    yield PAPER.strip(), f"published figures, other data than ours: {SOURCE}; {COSTS}"


def caution(cells: Sequence[Mapping[str, Any]]) -> str:
  """Why the table has no headline; empty where it has one.

  Args:
    cells: as `aggregate` takes them, with the `caution` of each, as `report.summary` has it:
      that of an undefended run holds for the table, as all else is compared with it.
  """
  of_undefended = (cell["caution"] for cell in cells if cell["defense"] == "undefended")
  return next(filter(None, of_undefended), "")


def finding(rows: Sequence[Mapping[str, Any]]) -> str:
  """What Diffence takes off on average and in the worst case, in one plain sentence."""
  cases = list(_scenarios(rows))
  means = average(rows)["columns"]
  changes = " / ".join(
    relative_change(means[name]["highest_auc"]["relative_change"]) for name in COLUMNS[1:]
  )
  over = f"average over {len(rows)} defenses, undefended included"
  over = over if len(rows) > 1 else rows[0]["title"]
  row, name, worst = max(cases, key=lambda case: case[2]["highest_auc"]["relative_change"])
  auc, difference = worst["highest_auc"], worst["difference"]
  text = (
    f"On {over}, Diffence changes the highest attack AUC by {changes} in scenarios 1 / 2 / 3; "
    f"the worst case is {row['title']} in {name}, "
    f"{row['columns']['alone']['highest_auc']['value']:.3f} -> {auc['value']:.3f} "
    f"({relative_change(auc['relative_change'])}, difference {signed(difference['value'], 3)} "
    f"{interval(estimate(difference))})"
  )
  above = [column for *_, column in cases if column["difference"]["value"] > 0.0]
  if above:
    beyond = sum(column["verdict"] == "above" for column in above)
    text += (
      f"; it leaves a higher AUC than the defense alone in {len(above)} of {len(cases)} cases, "
      f"in {beyond or 'none'} of them beyond the interval"
    )
  return f"{text}; it changes {_label_changes([column for *_, column in cases])}."


def _scenarios(rows) -> Iterator[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
  for row in rows:
    for name in COLUMNS[1:]:
      yield row, name, row["columns"][name]


def _label_changes(columns):
  changes = sum(column["label_changes"]["value"] for column in columns)
  number = sum(column["num_labels"] for column in columns)
  if changes == 0:
    return "no label"
  return f"{changes:,} of {number:,} labels ({percent(changes / number, 2)})"
