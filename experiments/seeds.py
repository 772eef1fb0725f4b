"""Repeats an experiment over seeds: what is gained on average, and how much that varies.

    python experiments/seeds.py --config=configs/digits.py --workdir=runs/digits_seeds

Every seed draws its own split, models and noise, in a workdir of its own (`seed0`, ...), so
that killed runs resume. Prints a table in Markdown and writes it to `seeds.md` in the workdir.
"""

import statistics
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from diffence_jax.audit.rows import PredictorRow
from diffence_jax.disk import write_atomically

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.")
_WORKDIR = flags.DEFINE_string("workdir", None, "For the runs and the table.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "The seeds.")


def table(runs: dict[int, tuple[PredictorRow, ...]]) -> str:
  """The table.

  Args:
    runs: seed to the rows of its results, one a predictor.

  Returns:
    Markdown: for every predictor the figures of all seeds, and their means.
  """
  lines = [
    "| predictor | test accuracy | labels changed | highest attack AUC | change | gap floor "
    "| above the floor |",
    "|---|---|---|---|---|---|---|",
  ]
  for rows in zip(*runs.values(), strict=True):
    accuracy = statistics.mean(row.test_accuracy.value for row in rows)
    aucs = [row.highest_auc.value for row in rows]
    changes = [row.highest_auc.relative_change for row in rows]
    gap = statistics.mean(row.gap.value for row in rows)
    change = ""
    if None not in changes:
      each = ", ".join(f"{100 * change:+.1f}" for change in changes)
      change = f"**{100 * statistics.mean(changes):+.1f}%** ({each})"
    lines.append(
      f"| {rows[0].name} | {100 * accuracy:.1f}% "
      f"| {', '.join(str(row.label_changes) for row in rows)} "
      f"| **{statistics.mean(aucs):.3f}** ({', '.join(f'{auc:.3f}' for auc in aucs)}) "
      f"| {change} | {gap:.3f} | {statistics.mean(aucs) - gap:.3f} |"
    )
  return "\n".join(lines) + "\n"


def main(argv):
  """Runs all seeds and prints the table."""
  del argv
  from diffence_jax.experiment.run import run
  from diffence_jax.report.summary import caution

  runs, warned = {}, ""
  for seed in map(int, _SEEDS.value):
    config = _CONFIG.value.copy_and_resolve_references()
    config.seed = seed
    results = run(config, Path(_WORKDIR.value) / f"seed{seed}")
    runs[seed], warned = results.predictors, warned or caution(results)
  text = (f"**{warned}**\n\n" if warned else "") + table(runs)
  write_atomically(Path(_WORKDIR.value) / "seeds.md", text)
  print(text)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
