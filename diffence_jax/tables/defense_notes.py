"""How to read the table of defenses, and what it says in one sentence."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffence_jax.report.cells import interval, mark_notes, percent, relative_change
from diffence_jax.report.table import LARGEST_MEANINGFUL_EPSILON
from diffence_jax.tables.defense_rows import COLUMNS, VERDICTS, average, estimate
from diffence_jax.tables.published import COSTS, SOURCE

PAPER = "  paper"


def signed(value, digits):
  # Adding zero turns a rounded -0.0 into 0.0.
  return f"{round(value, digits) + 0.0:+.{digits}f}"


def notes(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
  """How to read the tables: pairs of a term and its meaning."""
  counts = sorted({len(row["seeds"]) for row in rows})
  ends, how = [], []
  if counts[0] == 1:
    ends.append("of one seed: its 95% interval")
    how.append(
      "of one seed: the ends of both 95% intervals against each other, a conservative interval "
      "that includes 0 if they overlap"
    )
  if counts[-1] > 1:
    over = " or ".join(str(count) for count in counts if count > 1)
    ends.append(f"of {over} seeds: the least and the most of them, not a confidence interval")
    how.append(
      f"of {over} seeds: mean of the paired differences with its 95% t-interval, which is wide "
      "for two or three"
    )
  pairs = [
    (
      "highest",
      "over all attacks of a run, the strongest picked on the reported samples themselves, in "
      "the attacker's favour",
    ),
    ("[low, high]", "; ".join(ends)),
    ("+x% or -x%", "change relative to the same defense alone, of the means over seeds"),
    ("difference", "; ".join(how)),
  ]
  found = [c["verdict"] for _, _, c in _scenarios(rows)]
  pairs += [
    (mark, meaning)
    for verdict, (mark, meaning) in VERDICTS.items()
    if mark and verdict in found
  ]
  pairs += mark_notes(
    rate["enough"]
    for row in rows
    for column in row["columns"].values()
    for rate in column["highest_tpr_at_fpr"]
  )
  pairs.append(
    (
      "accuracy delta",
      "test accuracy of the defense alone minus that of undefended, in percentage points, and "
      "the interval of that difference; where Diffence changes no label, the same behind it",
    )
  )
  changed = [
    f"{row['title']}, {name}: {_label_changes([column])}, accuracy delta "
    f"{signed(100 * column['accuracy_delta']['value'], 2)} pp"
    for row in rows
    for name, column in row["columns"].items()
    if column["label_changes"]["value"]
  ]
  pairs.append(("labels changed", "; ".join(changed) or "none"))
  pairs += [
    (
      "training",
      "by the clock, with compilation and whatever else ran meanwhile; empty where it was "
      "stopped and resumed, and not timed",
    ),
    ("inference", "by the clock too, compiled before"),
  ]
  spent = [row["epsilon"]["value"] for row in rows if row["epsilon"]]
  if spent:
    meaning = "of the classifier alone: Diffence's diffusion model and interval see members too"
    if max(spent) > LARGEST_MEANINGFUL_EPSILON:
      meaning += "; one above 10 promises nothing"
    pairs.append(("epsilon", meaning))
  if len(rows) > 1:
    pairs.append(("mean", f"of the {len(rows)} defenses above, undefended included"))
  if any(row["published"] for row in rows):
    pairs.append((PAPER.strip(), f"published figures, other data than ours: {SOURCE}; {COSTS}"))
  return pairs


def finding(rows: Sequence[Mapping[str, Any]]) -> str:
  """What Diffence takes off on average and in the worst case, in one plain sentence."""
  found = list(_scenarios(rows))
  means = average(rows)["columns"]
  changes = " / ".join(
    relative_change(means[name]["highest_auc"]["relative_change"]) for name in COLUMNS[1:]
  )
  over = f"average over {len(rows)} defenses, undefended included"
  over = over if len(rows) > 1 else rows[0]["title"]
  row, name, worst = max(found, key=lambda case: case[2]["highest_auc"]["relative_change"])
  auc, difference = worst["highest_auc"], worst["difference"]
  text = (
    f"On {over}, Diffence changes the highest attack AUC by {changes} in scenarios 1 / 2 / 3; "
    f"the worst case is {row['title']} in {name}, "
    f"{row['columns']['alone']['highest_auc']['value']:.3f} -> {auc['value']:.3f} "
    f"({relative_change(auc['relative_change'])}, difference {signed(difference['value'], 3)} "
    f"{interval(estimate(difference))})"
  )
  above = [column for *_, column in found if column["difference"]["value"] > 0.0]
  if above:
    beyond = sum(column["verdict"] == "above" for column in above)
    text += (
      f"; it leaves a higher AUC than the defense alone in {len(above)} of {len(found)} cases, "
      f"in {beyond or 'none'} of them beyond the interval"
    )
  return f"{text}; it changes {_label_changes([column for *_, column in found])}."


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
