"""The results as text: what was measured, a table, and how to read it."""

from collections.abc import Mapping
from typing import Any

from diffence_jax.report import chosen_target, shadow, shadow_finding
from diffence_jax.report.cells import (
  GAP_FLOOR_NOTE,
  LABEL_FLOOR_NOTE,
  WIDTH,
  Cell,
  auc_cell,
  definitions,
  floor_cell,
  grid,
  loss_tail_notes,
  mark_notes,
  percent,
  percent_interval,
  rate_cell,
  rate_headings,
  relative_change,
  wrapped,
)
from diffence_jax.report.results import ClassifierFacts, DiffusionFacts, Results
from diffence_jax.report.summary import caution, policy_notes, sentences
from diffence_jax.training.recipe import Guarantee

# Above it the bound on an attacker's success is beyond what any attacker reaches.
LARGEST_MEANINGFUL_EPSILON = 10.0


def headings(results: Results) -> list[tuple[str, str]]:
  """The two lines of every heading of the main table."""
  return [
    ("", "predictor"),
    ("test", "accuracy"),
    ("labels", "changed"),
    ("", "ECE"),
    ("highest", "attack AUC"),
    *chosen_target.headings(results.predictors),
    ("gap", "floor"),
    ("label", "floor"),
    ("above", "floor"),
    ("highest attack", "accuracy"),
    *rate_headings(results.undefended.highest_tpr_at_fpr),
  ]


def main_rows(results: Results) -> list[list[Cell]]:
  """The main table, one row a predictor, the columns as in `headings`."""
  rows, first = [], results.undefended
  for row in results.predictors:
    auc, accuracy, tested = row.highest_auc, row.highest_accuracy, row.test_accuracy
    rows.append(
      [
        Cell(row.name),
        Cell(
          percent(tested.value),
          "",
          percent_interval(tested),
          tested.value < first.test_accuracy.value,
        ),
        Cell(f"{row.label_changes:,}", worse=row.label_changes > 0),
        Cell(f"{row.ece:.3f}", worse=row.ece > first.ece),
        auc_cell(auc, relative_change(auc.relative_change)),
        *chosen_target.cells(row, results.predictors),
        Cell(f"{row.gap.value:.3f}"),
        floor_cell(row.label_floor),
        Cell(f"{row.excess:.3f}", worse=row.excess > first.excess),
        auc_cell(accuracy, relative_change(accuracy.relative_change)),
        *(
          rate_cell(rate)._replace(worse=rate.value > before.value)
          for rate, before in zip(row.highest_tpr_at_fpr, first.highest_tpr_at_fpr, strict=True)
        ),
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
      f"{network(classifier)}, "
      f"accuracy {percent(classifier.train_accuracy)} on members, "
      f"{percent(classifier.test_accuracy)} on non-members",
    ),
    (
      "diffusion",
      f"{network(diffusion)}, " + _training_of(diffusion),
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
  return pairs


def network(about: ClassifierFacts | DiffusionFacts) -> str:
  """Which network it is, and how large where that is known."""
  if about.num_parameters is None:
    return about.model
  return f"{about.model}, {about.num_parameters:,} parameters"


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
  first = results.undefended.name
  count = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
  fewer = _on_fewer(results)
  pairs = [
    *policy_notes(results),
    (
      "highest",
      f"over {count} attacks, the strongest picked on the reported samples themselves, in the "
      f"attacker's favour; each with one query an image or changed version of it{fewer}",
    ),
    *chosen_target.notes(results.predictors),
    (
      "[low, high]",
      f"95% interval; +x% or -x%: change of the figure itself relative to {first}, as "
      "published; guessing has 0.5, so what is above it changes by more",
    ),
    ("gap floor", GAP_FLOOR_NOTE),
    ("label floor", LABEL_FLOOR_NOTE),
    (
      "TPR at FPR",
      "members found while at most this share of non-members is taken for members",
    ),
  ]
  rates = (rate.enough for row in results.predictors for rate in row.highest_tpr_at_fpr)
  return pairs + loss_tail_notes(results.undefended) + mark_notes(rates) + _left_out(results)


def format_table(results: Results, width: int = WIDTH) -> str:
  """The results for a terminal, plain ASCII but for names.

  Args:
    results: as `write_report` takes it.
    width: of the terminal, in columns; tables that are wider are cut between columns.

  Returns:
    What was measured, the table with a line of figures and a line of 95% intervals for every
    predictor, how to read it; the same once more of the attacks with shadow models, if there
    are any; and last the finding. Where the figures measure nothing that is said first, too.
  """
  title = f"{results.experiment}, seed {results.seed}"
  warned = caution(results)
  lines = [*wrapped(warned, width), ""] if warned else []
  lines += [title, "", *definitions(facts(results), width), ""]
  lines += [*grid(headings(results), main_rows(results), width), ""]
  lines += definitions(notes(results), width)
  told = [warned] if warned else sentences(results)
  if results.shadow:
    lines += ["", *shadow.text_lines(results, width)]
    told += [] if warned else [shadow_finding.finding(results)]
  for sentence in told:
    lines += ["", *wrapped(sentence, width)]
  return "\n".join(lines)


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
