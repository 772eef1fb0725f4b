"""What an audit of a record found, as text: sentences, tables, and rows of CSV files."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from diffence_jax.audit.rows import PredictorRow
from diffence_jax.audit.typed import to_plain
from diffence_jax.recorded.record import LogitRecord
from diffence_jax.recorded.results import RecordResults
from diffence_jax.report import chosen_target
from diffence_jax.report.cells import (
  LABEL_FLOOR_NOTE,
  WIDTH,
  Cell,
  auc_cell,
  definitions,
  floor_cell,
  grid,
  interval,
  limit_name,
  loss_tail_notes,
  mark_notes,
  no_formula,
  of_100,
  percent,
  percent_interval,
  rate_cell,
  rate_headings,
  relative_change,
  wrapped,
)
from diffence_jax.report.results_csv import figures, predictor_figures

# Of `examples.csv`.
EXAMPLE_COLUMNS = ("id", "label", "is_member", "is_known", "group", "classifier", "attack",
                   "score")  # fmt: skip


def finding(results: RecordResults) -> list[str]:
  """What leaks, in sentences for a reader who knows nothing of the field."""
  first, *others = results.predictors
  auc, rate = first.highest_auc, first.highest_tpr_at_fpr[-1]
  labels = first.label_floor or first.gap
  sentences = [
    f"Of 100 pairs of a member and a non-member the strongest attack ({auc.title}) tells "
    f"{of_100(auc.value)} apart rightly (95% interval {of_100(auc.low)} to "
    f"{of_100(auc.high)}); 50 is guessing, {of_100(labels.value)} is what the labels alone "
    "tell.",
    f"While {limit_name(rate.limit)} of non-members are taken for members, "
    f"{percent(rate.value)} of the members are found ({rate.title}; "
    f"{percent_interval(rate)}).",
    f"The classifier is right on {percent(first.member_accuracy.value)} of the members and on "
    f"{percent(first.test_accuracy.value)} of the non-members.",
  ]
  return sentences + [_behind(row, first) for row in others]


def _behind(row: PredictorRow, first: PredictorRow) -> str:
  after, tried = row.highest_auc, {attack.name for attack in row.attacks}
  weaker = {attack.name for attack in first.attacks} - tried
  # Fewer attacks find less, whatever the defense does.
  unfair = (
    " Fewer attacks were run against it, so that the two do not compare." if weaker else ""
  )
  return (
    f"Behind {row.name} it is {of_100(after.value)} ({of_100(after.low)} to "
    f"{of_100(after.high)}) of 100 pairs, at {percent(row.test_accuracy.value)} right on "
    f"non-members, with {row.label_changes:,} of {row.num_labels:,} labels changed.{unfair}"
  )


def facts(results: RecordResults) -> list[tuple[str, str]]:
  """What was audited, and how: pairs of a name and a sentence."""
  learnt = {
    "known": "learnt on the known samples, which no figure is about",
    "halves": (
      "no sample is marked as known (is_known): learnt on each half of the samples for the "
      "other, drawn by chance"
    ),
  }[results.thresholds]
  models = f"{results.num_models}" if results.num_models else "none in the record"
  return [
    (
      "samples",
      f"{results.num_members:,} members and {results.num_nonmembers:,} non-members reported, "
      f"of {results.num_samples:,}; {results.num_classes} classes",
    ),
    ("shadow models", models),
    ("thresholds", learnt),
  ]


def headings(results: RecordResults) -> list[tuple[str, str]]:
  """The two lines of every heading of the main table."""
  return [
    ("", "classifier"),
    ("right on", "non-members"),
    ("labels", "changed"),
    ("", "ECE"),
    ("highest", "attack AUC"),
    ("by", "attack"),
    *chosen_target.headings(results.predictors),
    ("gap", "floor"),
    ("label", "floor"),
    *rate_headings(results.undefended.highest_tpr_at_fpr),
  ]


def main_rows(results: RecordResults) -> list[list[Cell]]:
  """The main table, one row a classifier, the columns as in `headings`."""
  return [
    [
      Cell(row.name),
      Cell(percent(row.test_accuracy.value), below=percent_interval(row.test_accuracy)),
      Cell(f"{row.label_changes:,}"),
      Cell(f"{row.ece:.3f}"),
      auc_cell(row.highest_auc, relative_change(row.highest_auc.relative_change)),
      Cell(row.highest_auc.title),
      *chosen_target.cells(row, results.predictors),
      Cell(f"{row.gap.value:.3f}"),
      floor_cell(row.label_floor),
      *(rate_cell(rate) for rate in row.highest_tpr_at_fpr),
    ]
    for row in results.predictors
  ]


def attack_rows(results: RecordResults) -> list[list[Cell]]:
  """Every attack on every classifier."""
  return [
    [
      Cell(row.name),
      Cell(attack.title + (", per class" if attack.threshold == "per_class" else "")),
      auc_cell(attack.auc),
      auc_cell(attack.known_threshold_accuracy),
      *(rate_cell(rate) for rate in attack.tpr_at_fpr),
    ]
    for row in results.predictors
    for attack in row.attacks
  ]


def attack_headings(results: RecordResults) -> list[tuple[str, str]]:
  """The headings of `attack_rows`."""
  rates = rate_headings(results.undefended.highest_tpr_at_fpr)
  return [("", "classifier"), ("", "attack"), ("", "AUC"), ("learnt", "threshold"), *rates]


def in_turn_rows(results: RecordResults) -> list[list[Cell]]:
  """Every attack over all shadow models in turn."""
  return [
    [
      Cell(row.predictor),
      Cell(row.title),
      auc_cell(row.auc),
      Cell("", below="")
      if row.auc_change is None
      else Cell(f"{row.auc_change.value:+.3f}", below=interval(row.auc_change)),
      *(rate_cell(rate) for rate in row.tpr_at_fpr),
    ]
    for row in results.in_turn
  ]


def in_turn_headings(results: RecordResults) -> list[tuple[str, str]]:
  """The headings of `in_turn_rows`."""
  first = results.undefended
  rates = rate_headings(first.highest_tpr_at_fpr)
  return [("", "classifier"), ("", "attack"), ("", "AUC"), ("to", first.name), *rates]


def slice_rows(results: RecordResults) -> list[list[Cell]]:
  """The strongest attack on every group of the samples."""
  return [
    [
      Cell(row.group),
      Cell(row.predictor),
      Cell(f"{row.num_members:,}"),
      Cell(f"{row.num_nonmembers:,}"),
      Cell(percent(row.test_accuracy.value), below=percent_interval(row.test_accuracy)),
      auc_cell(row.auc),
      *(rate_cell(rate) for rate in row.tpr_at_fpr),
    ]
    for row in results.slices
  ]


def slice_headings(results: RecordResults) -> list[tuple[str, str]]:
  """The headings of `slice_rows`."""
  return [
    ("", "group"),
    ("", "classifier"),
    ("", "members"),
    ("non-", "members"),
    ("right on", "non-members"),
    ("strongest", "attack's AUC"),
    *rate_headings(results.undefended.highest_tpr_at_fpr),
  ]


def notes(results: RecordResults) -> list[tuple[str, str]]:
  """How to read the tables: pairs of a term and its meaning."""
  rates = [rate for row in results.predictors for rate in row.highest_tpr_at_fpr]
  rates += [rate for row in (*results.in_turn, *results.slices) for rate in row.tpr_at_fpr]
  return [
    (
      "highest",
      "the strongest of the attacks on all samples, picked on the reported samples themselves, "
      "in the attacker's favour",
    ),
    *chosen_target.notes(results.predictors),
    ("[low, high]", "95% interval"),
    (
      "gap floor",
      "AUC of calling every correctly classified sample a member; no defense that keeps the "
      "labels gets below it",
    ),
    (
      "label floor",
      LABEL_FLOOR_NOTE,
    ),
    (
      "TPR at FPR",
      "members found while at most this share of non-members is taken for members",
    ),
    *loss_tail_notes(results.undefended),
    *mark_notes([rate.enough for rate in rates]),
  ]


def left_out(results: RecordResults) -> list[tuple[str, str]]:
  """What was not run, and why."""
  by_reason: dict[str, list[str]] = {}
  for what, reason in results.left_out.items():
    by_reason.setdefault(reason, []).append(what)
  pairs = [("attacks", f"{'; '.join(names)}: {reason}") for reason, names in by_reason.items()]
  if results.slices_left_out:
    groups = ", ".join(results.slices_left_out)
    pairs.append(("groups", f"{groups}: fewer than ten members or non-members"))
  return pairs


def format_table(results: RecordResults, width: int = WIDTH) -> str:
  """The results for a terminal of so many columns."""
  lines = ["audit of recorded answers", "", *definitions(facts(results), width), ""]
  lines += [*grid(headings(results), main_rows(results), width), ""]
  lines += [*definitions(notes(results), width), ""]
  if results.in_turn:
    lines += [
      f"every shadow model in turn as the target ({results.num_models})",
      "",
      *grid(in_turn_headings(results), in_turn_rows(results), width),
      "",
    ]
  if results.slices:
    lines += [*grid(slice_headings(results), slice_rows(results), width), ""]
  if left_out(results):
    lines += ["left out", "", *definitions(left_out(results), width), ""]
  for sentence in finding(results):
    lines += wrapped(sentence, width)
  return "\n".join(lines)


def csv_rows(results: RecordResults) -> Iterator[dict[str, Any]]:
  """A line a figure: classifier, group, attack, threshold, metric, value, low, high."""
  for row in results.predictors:
    for figure in predictor_figures(row):
      yield {"classifier": figure.pop("predictor"), "group": ""} | figure
  for row in results.in_turn:
    named = {"classifier": row.predictor, "group": "", "attack": row.attack}
    plain = to_plain(row)
    shown = {f"in_turn_{name}": plain[name] for name in ("auc", "auc_change", "tpr_at_fpr")}
    yield from ({**named, "threshold": "global"} | figure for figure in figures(shown))
  for row in results.slices:
    plain = to_plain(row)
    named = {"classifier": plain.pop("predictor")}
    named |= {name: plain.pop(name) for name in ("group", "attack")}
    yield from ({**named, "threshold": "global"} | figure for figure in figures(plain))


def example_columns(record: LogitRecord) -> list[tuple]:
  """What `examples.csv` tells of each sample: all of `EXAMPLE_COLUMNS` but the last three."""
  num = len(record.labels)
  known = np.zeros(num, bool) if record.is_known is None else record.is_known
  groups = [""] * num if record.groups is None else map(no_formula, record.groups.tolist())
  masks = (mask.astype(int).tolist() for mask in (record.is_member, known))
  ids = map(no_formula, record.ids.tolist())
  return list(zip(ids, record.labels.tolist(), *masks, groups, strict=True))
