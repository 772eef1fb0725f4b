"""The paper's main table, and two later defenses: each alone and under Diffence, over seeds.

    python experiments/defense_table.py --config=configs/digits.py --workdir=runs/defenses

Every defense is an experiment of its own, with the config's options for it (`defenses.NAME`),
in one workdir: what they share, above all the diffusion model, is computed once, and every
image is re-generated once for all of them. A killed run resumes, and a finished one only
prints. Any defense can be looked at by itself with the same workdir:

    diffence --config=configs/digits.py --workdir=runs/defenses --config.classifier.defense=hamp

Writes `defense_table.txt`, `.csv`, `.html`, `.tex` and `.json` to the workdir. Cost: see
docs/results.md.
"""

import shutil
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.")
_WORKDIR = flags.DEFINE_string("workdir", None, "For the artifacts and the table.")
_SEEDS = flags.DEFINE_list(
  "seeds",
  ["0", "1"],
  "The seeds, with commas between. With one, intervals are over samples; with several, over "
  "seeds, and wide for two or three.",
)
_DEFENSES = flags.DEFINE_list(
  "defenses",
  [
    "undefended",
    "selena",
    "advreg",
    "hamp",
    "relaxloss",
    "ccl",
    "dpsgd",
    "dpsgd_tuned",
    "memguard",
  ],
  "The defenses, by name, with commas between; undefended is always among them, and first. "
  "early_stopping, label_smoothing and confidence_penalty are there too. One of your own is "
  "module:function where it trains, output=module:function where it changes answers.",
)


def main(argv) -> None:
  """Reads the flags, and prints the table or, in a line, what is wrong."""
  del argv
  logging.set_verbosity(logging.WARNING)
  from diffence_jax.experiment.defense_runs import run_defense_table
  from diffence_jax.report.cells import WIDTH

  defenses = list(dict.fromkeys(["undefended", *_DEFENSES.value]))
  try:
    seeds = [int(seed) for seed in dict.fromkeys(_SEEDS.value)]
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    print(run_defense_table(_CONFIG.value, Path(_WORKDIR.value), defenses, seeds, width))
  except (ValueError, OSError, ImportError) as error:
    print(f"defense_table: {error}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
