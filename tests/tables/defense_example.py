"""Three defenses over two seeds, as the table of defenses takes them: a run's, with figures."""

import dataclasses

from report.report_example import estimate, with_aucs, with_enough, without_shadow

from diffence_jax.audit.typed import to_plain

# Defense to title and, for every seed, the highest AUC alone and in scenarios 1, 2 and 3.
AUCS = {
  "undefended": ("undefended", {0: (0.74, 0.58, 0.62, 0.61), 1: (0.76, 0.60, 0.60, 0.63)}),
  "selena": ("SELENA", {0: (0.60, 0.55, 0.59, 0.62), 1: (0.62, 0.57, 0.64, 0.64)}),
  "own": ("50% & $_own", {0: (0.70, 0.60, 0.66, 0.65), 1: (0.72, 0.62, 0.67, 0.67)}),
}
ACCURACIES = {"undefended": (0.965, 0.965), "selena": (0.945, 0.935), "own": (0.970, 0.975)}
SECONDS = {"undefended": (10.0, 12.0), "selena": (180.0, 216.0), "own": (11.0, 22.0)}
INFERENCE = {"undefended": {"alone": 0.5, "diffence": 9.0}, "selena": {"alone": 0.4}}
FACTS = [("data", "digits: 8x8x1 images in 10 classes"), ("machine", "2 cores, jax_1 & more")]
_STRONGEST = (("lira_online", "LiRA online"), ("rmia_online", "RMIA online"))


def make_cells(seeds=(0, 1), label_changes=(0, 0, 0, 0), enough=(False, True)):
  """Cells of every defense and seed.

  Args:
    seeds: 0, 1 or both.
    label_changes: the labels that SELENA changes, alone and in scenarios 1, 2 and 3.
    enough: whether the samples are large enough for the rates at 0.1% and at 1%.

  Returns:
    The cells, seed by seed.
  """
  run = with_enough(enough, without_shadow())
  return [_cell(run, name, seed, label_changes) for seed in seeds for name in AUCS]


def _cell(run, name, seed, label_changes):
  title, aucs = AUCS[name]
  changes = label_changes if name == "selena" else (0, 0, 0, 0)
  # Averaging, which the table leaves out, would stand out by its figures.
  results = with_aucs((*aucs[seed], 0.999), (*changes, 999), run)
  rows = [_row(row, at, name, seed) for at, row in enumerate(results.predictors)]
  return {
    "defense": name,
    "title": title,
    "seed": seed,
    "caution": "",
    "predictors": to_plain(rows),
    "train_seconds": SECONDS[name][seed],
    "inference_ms": INFERENCE.get(name),
    "epsilon": None,
  }


def _row(row, at, name, seed):
  highest = row.highest_auc
  if (name, at) == ("selena", 1):
    attack, title = _STRONGEST[seed]
    highest = dataclasses.replace(highest, attack=attack, title=title)
  figures = estimate(0.02, 0.009), estimate(0.20 - 0.04 * at + 0.02 * seed, 0.09)
  rates = zip(row.highest_tpr_at_fpr, figures, strict=True)
  return dataclasses.replace(
    row,
    test_accuracy=estimate(ACCURACIES[name][seed], 0.018),
    ece=0.02 + 0.01 * seed + 0.002 * at,
    highest_auc=highest,
    highest_tpr_at_fpr=tuple(
      dataclasses.replace(rate, **figure._asdict()) for rate, figure in rates
    ),
  )
