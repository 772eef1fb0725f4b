"""What attacks with shadow models found, as text: tables for the terminal, and a CSV file."""

import os
from pathlib import Path

from diffence_jax.audit.label_floor import LABELS_ALONE
from diffence_jax.audit.shadow import InTurnRow
from diffence_jax.audit.typed import to_plain
from diffence_jax.report import shadow_canaries, shadow_optimised
from diffence_jax.report.cells import (
  WIDTH,
  Cell,
  auc_cell,
  definitions,
  flat,
  grid,
  interval,
  limit_name,
  percent,
  rate_cell,
  relative_change,
  run_columns,
  wrapped,
  write_rows,
)
from diffence_jax.report.results import Results
from diffence_jax.report.shadow_notes import facts, notes
from diffence_jax.report.shadow_rows import (
  NEAR,
  adaptive,
  column_attacks,
  in_turn,
  main_attack,
  recovered_share,
  repeated,
)

# What a terminal has room for: attacks with a column of their own, and then the largest numbers
# of repeated queries.
_MOST_COLUMNS = 5
TARGET_TITLE = "Attack AUC on the target: one query, and the same query k times"
MODELS_TITLE = "Every shadow model as the target in turn, one query"
REPEATED_TITLE = "Every shadow model as the target in turn, the same query k times"


def target_headings(results: Results, most: int | None = None) -> list[tuple[str, str]]:
  """The two lines of every heading of the target's table; `most` as in `target_rows`."""
  return [
    ("", "predictor"),
    *([("best threshold", "attack")] if _best_threshold(results.undefended) else []),
    *((title, "k = 1") for title in column_attacks(results).values()),
    *((results.shadow.main_title, f"k = {k}") for k in _last(repeated(results), most)),
  ]


def target_rows(results: Results, most: int | None = None) -> list[list[Cell]]:
  """The table about the target: a row a predictor, and one more for its near-duplicates.

  Args:
    results: as `write_report` takes it.
    most: how many of the numbers of repeated queries to show, the largest; None for all.

  Returns:
    The rows, the columns as in `target_headings`.
  """
  numbers = _last(repeated(results), most)
  undefended, main = results.undefended, main_attack(results)
  names = tuple(column_attacks(results))
  threshold = _best_threshold(undefended)
  before = {name: _auc(results, undefended.name, name, 1) for name in names}
  rows = []
  for row in results.predictors:
    name = row.name
    best = _best_threshold(row)
    change = "" if row is undefended or best is None else _change(best, threshold)
    thresholds = [] if best is None else [auc_cell(best, change)]
    for inputs in ("same", NEAR):
      aucs = {attack: _auc(results, name, attack, 1, inputs) for attack in names}
      if aucs[main] is None:
        continue
      cells = [
        auc_cell(auc, "" if row is undefended else _change(auc, before[attack]))
        for attack, auc in aucs.items()
      ]
      for k in numbers:
        auc = _auc(results, name, main, k, inputs)
        cells.append(auc_cell(auc) if auc else Cell("-"))
      if inputs == "same":
        rows.append([Cell(name), *thresholds, *cells])
      else:
        # One line will do: the intervals are as wide as those above.
        cells = [cell._replace(below="") for cell in cells]
        rows.append([Cell(f"- {inputs}"), *(Cell("") for _ in thresholds), *cells])
  return rows


def model_headings(results: Results) -> list[tuple[str, str]]:
  """The two lines of every heading of the table about every model in turn."""
  limits = [rate.limit for rate in results.shadow.samples[0].tpr_at_fpr]
  main, *others = column_attacks(results).values()
  return [
    ("", "predictor"),
    (main, "AUC"),
    ("difference to", results.undefended.name),
    *((title, "AUC") for title in others),
    *((main, f"TPR at {limit_name(limit)} FPR") for limit in limits),
  ]


def model_rows(results: Results) -> list[list[Cell]]:
  """The table about every model in turn, as in `model_headings`.

  A row a predictor, and one of an answer that tells the label alone.
  """
  tables = [(predictor.name, results.shadow.samples) for predictor in results.predictors]
  if results.shadow.label_floor:
    tables.append((LABELS_ALONE.name, results.shadow.label_floor))
  rows = []
  for name, table in tables:
    figures = {row.attack: row for row in table if row.predictor == name and row.queries == 1}
    main, *others = (figures[attack] for attack in column_attacks(results))
    rates = [rate_cell(rate) for rate in main.tpr_at_fpr]
    cells = [auc_cell(other.auc) for other in others]
    rows.append([Cell(name), auc_cell(main.auc), difference_cell(main), *cells, *rates])
  return rows


def repeated_headings(results: Results, most: int | None = None) -> list[tuple[str, str]]:
  """The two lines of every heading of the table about every model asked again.

  Args:
    results: as `write_report` takes it, with repeated queries.
    most: as in `target_rows`.

  Returns:
    The headings; the last columns are at the largest number of queries.
  """
  numbers = repeated(results)
  main, *others = column_attacks(results).values()
  limit = results.shadow.samples[0].tpr_at_fpr[-1].limit
  return [
    ("", "predictor"),
    *((main, f"k = {k}") for k in (1, *_last(numbers, most))),
    *((title, f"k = {numbers[-1]}") for title in others),
    (f"TPR at {limit_name(limit)} FPR", f"{main}, k = {numbers[-1]}"),
  ]


def repeated_rows(results: Results, most: int | None = None) -> list[list[Cell]]:
  """The table about every model asked again, one row a predictor, as `repeated_headings`."""
  numbers = repeated(results)
  undefended = results.undefended.name
  main, *others = column_attacks(results)
  asked = [(main, k) for k in _last(numbers, most)]
  asked += [(attack, numbers[-1]) for attack in others]
  rows = []
  for predictor in results.predictors:
    name = predictor.name
    cells = [Cell(name), auc_cell(_turn(results, name, main, 1).auc)]
    for attack, k in asked:
      row = _turn(results, name, attack, k)
      once, before = (_turn(results, who, attack, 1) for who in (name, undefended))
      cells.append(
        auc_cell(row.auc, _back(row.auc, once.auc, before.auc)) if row else Cell("-")
      )
    last = _turn(results, name, main, numbers[-1])
    rows.append([*cells, rate_cell(last.tpr_at_fpr[-1]) if last else Cell("-")])
  return rows


def difference_cell(row: InTurnRow) -> Cell:
  """The AUC minus the undefended predictor's, with its interval; empty where there is none."""
  change = row.auc_change
  if change is None:
    return Cell("")
  return Cell(f"{change.value:+.3f}", below=interval(change), worse=change.value > 0.0)


def text_lines(results: Results, width: int = WIDTH) -> list[str]:
  """The block for a terminal, plain ASCII but for names, without the finding.

  Args:
    results: as `write_report` takes it, with shadow models.
    width: of the terminal.
  """
  again, most = [], max(1, _MOST_COLUMNS - len(column_attacks(results)))
  if repeated(results):
    shown = (repeated_headings(results, most), repeated_rows(results, most))
    again = ["", *wrapped(REPEATED_TITLE, width), *grid(*shown, width)]
  if results.shadow.canaries:
    main = shadow_canaries.rows(results, [main_attack(results)])
    again += ["", *wrapped(shadow_canaries.title(results), width)]
    again += grid(shadow_canaries.headings(results), main, width)
  if results.shadow.optimised:
    again += ["", *wrapped(shadow_optimised.TITLE, width)]
    again += grid(shadow_optimised.headings(results), shadow_optimised.rows(results), width)
    again += wrapped(shadow_optimised.note(results), width)
  return [
    *definitions(facts(results), width),
    "",
    *wrapped(TARGET_TITLE, width),
    *grid(target_headings(results, most), target_rows(results, most), width),
    "",
    *wrapped(MODELS_TITLE, width),
    *grid(model_headings(results), model_rows(results), width),
    *again,
    "",
    *definitions(notes(results), width),
  ]


def write_csv(results: Results, path: str | os.PathLike) -> None:
  """Writes the rows about the target, about every model in turn, and about the canaries.

  The column `table` tells them apart: "adaptive", "leave_one_out", "canaries", of which `kind`
  tells the kinds apart, and "optimised", of which `sent` tells what was sent; and, a row a
  predictor, "chosen" (the best single attack, chosen on other models), "named" (how many
  members can be named), "single_examples" and "epsilon". Other columns are named as those of
  `results.csv`.

  Args:
    results: as `write_report` takes it.
    path: the file, replaced if it is there.
  """
  tables = {
    "adaptive": "adaptive", "samples": "leave_one_out", "canaries": "canaries",
    "optimised": "optimised", "chosen": "chosen", "named": "named",
    "vulnerability": "single_examples", "epsilon": "epsilon",
  }  # fmt: skip
  first = ("predictor", "attack", "queries", "inputs", "shadow_models", "num_models", "kind",
           "sent")  # fmt: skip
  rows = []
  for key, table in tables.items():
    for row in getattr(results.shadow, key):
      plain = to_plain(row)
      plain.pop("attacks", None)
      named = {name: plain.get(name) for name in first}
      # A change that there is none of has no columns of its own.
      plain = {name: value for name, value in plain.items() if value is not None}
      rows.append({**run_columns(results), "table": table, **named, **dict(flat(plain))})
  write_rows(rows, Path(path))


def _best_threshold(predictor):
  """The highest AUC of the threshold attacks, with its interval; None without any."""
  aucs = [a.auc for a in predictor.attacks if a.family == "thresholds"]
  return max(aucs, key=lambda auc: auc.value, default=None)


def _auc(results, predictor, attack, queries, inputs="same"):
  """An AUC on the target with defended shadow models; None if there is none."""
  wanted = {"predictor": predictor, "attack": attack, "queries": queries, "inputs": inputs}
  rows = adaptive(results, **wanted, shadow_models="defended")
  return rows[0].auc if rows else None


def _turn(results, predictor, attack, queries):
  """The row over all models in turn; None if there is none."""
  rows = in_turn(results, predictor=predictor, attack=attack, queries=queries)
  return rows[0] if rows else None


def _change(auc, before):
  return relative_change(auc.value / before.value - 1.0) if before.value > 0.0 else ""


def _back(again, once, before):
  """The share of what the defense takes off that more queries get back, in words."""
  share = recovered_share(again, once, before)
  if share is None:
    return ""
  # What would be printed as 0%.
  if share < 0.005:
    return "none back"
  return "all back" if share >= 1.0 else f"{percent(share, 0)} back"


def _last(numbers, most):
  return numbers if most is None else numbers[-most:]
