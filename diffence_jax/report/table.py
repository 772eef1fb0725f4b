"""The results as text: a table and one plain sentence for the terminal, and a CSV file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffence_jax.audit.typed import to_plain
from diffence_jax.report import shadow
from diffence_jax.report.cells import (
  NO_CHANGE,
  Cell,
  auc_cell,
  definitions,
  flat,
  grid,
  limit_name,
  mark_notes,
  percent,
  percent_interval,
  rate_cell,
  relative_change,
  run_columns,
  write_rows,
)
from diffence_jax.report.results import Results
from diffence_jax.training.recipe import Guarantee

# Above it the bound on an attacker's success is beyond what any attacker reaches.
LARGEST_MEANINGFUL_EPSILON = 10.0


def headings(results: Results) -> list[tuple[str, str]]:
  """The two lines of every heading of the main table."""
  limits = [rate.limit for rate in results.predictors[0].highest_tpr_at_fpr]
  return [
    ("", "predictor"),
    ("test", "accuracy"),
    ("labels", "changed"),
    ("", "ECE"),
    ("highest", "attack AUC"),
    ("gap", "floor"),
    ("above", "floor"),
    ("highest attack", "accuracy"),
    *(("TPR at", f"{limit_name(limit)} FPR") for limit in limits),
  ]


def main_rows(results: Results) -> list[list[Cell]]:
  """The main table, one row a predictor, the columns as in `headings`."""
  rows = []
  for row in results.predictors:
    auc, accuracy, tested = row.highest_auc, row.highest_accuracy, row.test_accuracy
    rows.append(
      [
        Cell(row.name),
        Cell(percent(tested.value), below=percent_interval(tested)),
        Cell(f"{row.label_changes:,}"),
        Cell(f"{row.ece:.3f}"),
        auc_cell(auc, relative_change(auc.relative_change)),
        Cell(f"{row.gap.value:.3f}"),
        Cell(f"{row.excess:.3f}"),
        auc_cell(accuracy, relative_change(accuracy.relative_change)),
        *(rate_cell(rate) for rate in row.highest_tpr_at_fpr),
      ]
    )
  return rows


def reported_sizes(results: Results) -> tuple[int, int]:
  """How many members and non-members the figures rest on."""
  data = results.data
  groups = ("target",) if results.protocol == "disjoint" else ("known", "target")
  members, nonmembers = (
    sum(getattr(data, f"{group}_{side}") for group in groups)
    for side in ("members", "nonmembers")
  )
  return members, nonmembers


def facts(results: Results) -> list[tuple[str, str]]:
  """What was measured: pairs of a name and a sentence."""
  data, purify = results.data, results.purify
  classifier, diffusion = results.classifier, results.diffusion
  members, nonmembers = reported_sizes(results)
  shape = "x".join(map(str, data.image_shape))
  steps = purify.num_ddim_steps
  how = {
    "disjoint": "target samples only; intervals and thresholds saw the known ones only",
    "paper": "known and target samples pooled, as published: for comparison only",
  }
  pairs = [
    ("data", f"{data.source}: {shape} images in {data.num_classes} classes"),
    (
      "samples",
      f"members {data.known_members:,} known + {data.target_members:,} target; "
      f"non-members {data.known_nonmembers:,} known + {data.target_nonmembers:,} target; "
      f"reference {data.reference:,}",
    ),
    (
      "classifier",
      f"{classifier.model}, {classifier.num_parameters:,} parameters, "
      f"accuracy {percent(classifier.train_accuracy)} on members, "
      f"{percent(classifier.test_accuracy)} on non-members",
    ),
    (
      "diffusion",
      f"{diffusion.model}, {diffusion.num_parameters:,} parameters, " + _training_of(diffusion),
    ),
    *_other_defenses(results.defense),
    (
      "Diffence",
      f"{purify.num_candidates} candidates an image, noised to step {purify.step}"
      f"{_respacing(purify)}, "
      f"{steps} DDIM step{'' if steps == 1 else 's'} back"
      + (f", in {purify.dtype}" if purify.dtype else ""),
    ),
    (
      "protocol",
      f"{results.protocol}: {members:,} members and {nonmembers:,} non-members reported, "
      f"{how[results.protocol]}",
    ),
  ]
  if results.variant.endswith("smoke"):
    pairs.append(("variant", "smoke: a shortened run, its figures do not measure the defense"))
  return pairs


def _respacing(purify):
  return f" of {purify.respacing}" if purify.respacing else ""


def _training_of(diffusion):
  if diffusion.loss is None:
    return "a saved model, not trained here"
  return f"trained on the {diffusion.trained_on}, loss {diffusion.loss:.4f}"


def notes(results: Results) -> list[tuple[str, str]]:
  """How to read the main table: pairs of a term and its meaning."""
  # Not every attack fits every predictor.
  counts = sorted({len(row.attacks) for row in results.predictors})
  first = results.predictors[0].name
  count = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
  fewer = _on_fewer(results)
  pairs = [
    (
      "highest",
      f"over {count} attacks, the strongest picked on the reported samples themselves, in the "
      f"attacker's favour; each with one query an image or changed version of it{fewer}",
    ),
    (
      "[low, high]",
      f"95% interval; +x% or -x%: change relative to {first}",
    ),
    (
      "gap floor",
      "AUC of calling every correctly classified image a member; no defense that keeps "
      "the labels gets below it",
    ),
    (
      "TPR at FPR",
      "members found while at most this share of non-members is taken for members",
    ),
  ]
  rates = (rate.enough for row in results.predictors for rate in row.highest_tpr_at_fpr)
  return pairs + mark_notes(rates) + _left_out(results)


def finding(results: Results) -> str:
  """What the defense gained and what it cost, in one plain sentence.

  It is about the predictor with the lowest highest AUC among those that change no label, tells
  what the others of them leave, as the lowest of several is partly luck, and says so if a
  predictor that changes labels gets lower still.

  Args:
    results: as `write_report` takes it, the undefended predictor first.

  Returns:
    The sentence, ASCII.
  """
  undefended, *defended = results.predictors
  if not defended:
    return f"No policy was audited; the highest attack AUC is {_highest_auc(undefended):.3f}."
  lowest = min(defended, key=_highest_auc)
  keeping = [row for row in defended if row.label_changes == 0]
  chosen = min(keeping or defended, key=_highest_auc)
  auc, before = chosen.highest_auc, undefended.highest_auc
  change = auc.relative_change
  name = chosen.name[:1].upper() + chosen.name[1:]
  floor = f"gap floor {chosen.gap.value:.3f}"
  overlap = ", 95% intervals overlap" if auc.high >= before.low else ""
  values = f"{before.value:.3f} -> {auc.value:.3f}{overlap}"
  if change > -NO_CHANGE:
    which = "that keeps the labels " if keeping else ""
    text = (
      f"Nothing was gained: no defended predictor {which}lowers the highest attack AUC "
      f"({undefended.name} {before.value:.3f}, best {chosen.name} "
      f"{auc.value:.3f}; {floor})"
    )
  else:
    text = f"takes {percent(-change)} off the highest attack AUC ({values}; {floor})"
    text = f"No clear change: {chosen.name} {text}" if overlap else f"{name} {text}"
    text += f" and changes {_label_changes(chosen)}"
    text += _left_by([_highest_auc(row) for row in keeping if row is not chosen])
  if _highest_auc(lowest) < min(auc.value, before.value) - NO_CHANGE:
    text += (
      f"; {lowest.name} reaches {_highest_auc(lowest):.3f} but changes {_label_changes(lowest)}"
    )
  return text + "."


def _left_by(aucs: list[float]) -> str:
  if not aucs:
    return ""
  low, high = f"{min(aucs):.3f}", f"{max(aucs):.3f}"
  if len(aucs) == 1:
    return f"; the other policy that keeps labels leaves {low}"
  return f"; the other policies that keep labels leave {low}" + f" to {high}" * (low != high)


def format_table(results: Results) -> str:
  """The results for a terminal of 120 columns, plain ASCII.

  Args:
    results: as `write_report` takes it.

  Returns:
    What was measured, the table with a line of figures and a line of 95% intervals for every
    predictor, how to read it, and the finding in one sentence; the same once more of the
    attacks with shadow models, if there are any.
  """
  title = f"{results.experiment}, seed {results.seed}"
  table = grid(headings(results), main_rows(results))
  lines = [title, "", *definitions(facts(results)), "", *table, ""]
  lines += [*definitions(notes(results)), "", finding(results)]
  if results.shadow:
    lines += ["", *shadow.text_lines(results)]
  return "\n".join(lines)


def write_csv(results: Results, path: str | os.PathLike) -> None:
  """Writes every figure, one row for each attack on each predictor, atomically.

  Columns are named by their place in `results` (`auc`, `auc_low`, `tpr_at_fpr_0.001_high`);
  those of the predictor are repeated in each of its rows. What does not exist is left empty.

  Args:
    results: as `write_report` takes it.
    path: the file, replaced if it is there.
  """
  rows = []
  for row in results.predictors:
    low, high = row.interval or (None, None)
    fields = to_plain(row)
    ends = {"predictor": fields.pop("name"), "interval_low": low, "interval_high": high}
    del fields["interval"], fields["attacks"]
    predictor = {**ends, **dict(flat(fields))}
    for attack in row.attacks:
      figures = to_plain(attack)
      figures = {"attack": figures.pop("name"), **figures}
      rows.append({**run_columns(results), **predictor, **dict(flat(figures))})
  write_rows(rows, Path(path))


def _other_defenses(defense):
  """Those besides Diffence, in words; empty for none."""
  pairs = []
  for name, heading, when in (
    (defense.training, "training", "alone and under Diffence"),
    (defense.output, "answers", "applied after Diffence"),
  ):
    if name in ("undefended", "none"):
      continue
    text = f"{with_options(name, defense.options.get(name, {}))}, {when}"
    if defense.guarantee and heading == "training":
      text += f"; {guarantee(defense.guarantee)}"
    pairs.append((heading, text))
  return pairs


def with_options(name: str, options: Mapping[str, Any]) -> str:
  """A defense's name and, in brackets, the options that it was given."""
  given = [f"{option} {value}" for option, value in options.items() if value is not None]
  return f"{name} ({', '.join(given)})" if given else name


def guarantee(private: Guarantee) -> str:
  """What differential privacy guarantees, and what not, in words; of a `Guarantee`'s fields."""
  text = (
    f"noise multiplier {private.noise_multiplier:.4g}: epsilon {private.epsilon:,.4g} at "
    f"delta {private.delta:.1g}, of the classifier alone and not of Diffence, whose "
    "diffusion model and interval see members too"
  )
  if private.epsilon > LARGEST_MEANINGFUL_EPSILON:
    text += "; so large an epsilon promises nothing"
  return text


def _on_fewer(results):
  """Which attacks are judged on fewer samples than all, in words."""
  expected, fewer = reported_sizes(results), {}
  for row in results.predictors:
    for attack in row.attacks:
      sizes = attack.tnr_at_fnr[0].num, attack.tpr_at_fpr[0].num
      # Those that train on known samples are never pooled; that is told elsewhere.
      if sizes != expected and results.protocol == "disjoint":
        fewer[attack.title] = sizes
  if not fewer:
    return ""
  members, nonmembers = min(fewer.values())
  both = f"{members:,} members and {nonmembers:,} non-members"
  sides = f"{members:,} a side" if members == nonmembers else both
  return f"; {', '.join(fewer)} on fewer samples, {sides}"


def _left_out(results):
  """Which attacks were not run, and what they would need: a term and its meaning, or none."""
  by_need: dict[tuple[str, ...], list[str]] = {}
  for name, needs in results.left_out.items():
    by_need.setdefault(tuple(needs), []).append(name)
  if not by_need:
    return []
  texts = [f"{', '.join(names)}, for want of {' and '.join(needs)}"
           for needs, names in by_need.items()]  # fmt: skip
  return [("not run", "; ".join(texts))]


def _label_changes(row):
  if row.label_changes == 0:
    return "no label"
  share = percent(row.label_changes / row.num_labels)
  return f"{row.label_changes:,} of {row.num_labels:,} labels ({share})"


def _highest_auc(row):
  return row.highest_auc.value
