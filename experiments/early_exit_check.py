"""Does early exit select what drawing all candidates selects? On the models of a finished run.

    diffence --config=configs/digits.py --workdir=runs/digits
    python experiments/early_exit_check.py --config=configs/digits.py --workdir=runs/digits

Asks about all images of the data, with new noise again and again until the queries of the three
scenarios are as many as `--queries`; intervals are those of the run. Prints a table in Markdown
and writes `early_exit.json` to the workdir: how many indices and labels differ, and for each
that does how far its phi is from the nearest end of the interval (another rounding may move it
over that); how many candidates an image took; and by what factor fewer re-generations went
through the networks, those that only filled a batch among them.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from selections import differences

import diffence_jax as dj
from diffence_jax import rng
from diffence_jax.defense import make_early_selection

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's.")
_QUERIES = flags.DEFINE_integer("queries", 10_000, "The least number of queries in all.")
_IMAGES = flags.DEFINE_integer("images", None, "The first so many images; all by default.")


def check(finished) -> dict[str, Any]:
  """Asks both ways of a finished run; policy to what came of it."""
  experiment, predict = finished.experiment, finished.predict
  config = experiment.settings
  settings = {"chunk_size": config.compute.chunk_size, **finished.settings}
  networks = (predict, finished.denoise, finished.schedule)
  policies = {
    name: policy
    for name, policy in finished.policies.items()
    if isinstance(policy, dj.defense.RankPolicy)
  }
  ways = {
    name: make_early_selection(*networks, policy=policy, **settings)
    for name, policy in policies.items()
  }
  draw_all = jax.jit(
    lambda key, images, ids: dj.candidate_logits(key, *networks, images, ids=ids, **settings)
  )
  images = experiment.dataset.images[: _IMAGES.value]
  ids = np.arange(len(images), dtype=np.int32)
  totals = {name: {"different": [], "labels": 0, "logits": 0.0, "drawn": 0, "evaluations": 0}
            for name in ways}  # fmt: skip
  rounds = -(-_QUERIES.value // (len(ways) * len(images)))
  for number in range(rounds):
    key = rng.stream(config.seed, f"early_exit/{number}")
    for start in range(0, len(images), config.compute.batch_size):
      rows = slice(start, start + config.compute.batch_size)
      asked = images[rows].astype(np.float32) / 255.0
      raw = np.asarray(predict(None, asked))
      candidates = np.asarray(draw_all(key, asked, ids[rows]))
      for name, select_early in ways.items():
        full = policies[name].select(candidates, raw)
        early = select_early(key, asked, ids[rows], raw)
        total = totals[name]
        total["different"] += differences(full, early, candidates, raw, policies[name].interval)
        same_label = np.argmax(full.logits, axis=1) == np.argmax(early.logits, axis=1)
        total["labels"] += int(np.sum(~same_label))
        same = np.asarray(full.index == early.index)
        apart = np.abs(np.asarray(full.logits) - np.asarray(early.logits))[same]
        total["logits"] = max(total["logits"], float(apart.max(initial=0.0)))
        total["drawn"] += int(np.sum(early.drawn))
        total["evaluations"] += early.evaluations
  queries, num_candidates = rounds * len(images), config.purify.num_candidates
  return {
    name: {
      "interval": policies[name].interval,
      "images": len(images),
      "queries": queries,
      "num_candidates": num_candidates,
      "different_index": len(total["different"]),
      "different_label": total["labels"],
      "differences": total["different"],
      "largest_difference_of_logits": total["logits"],
      "drawn_per_query": total["drawn"] / queries,
      "evaluations_per_query": total["evaluations"] / queries,
      "fewer_evaluations": queries * num_candidates / total["evaluations"],
    }
    for name, total in totals.items()
  }


def main(_) -> None:
  """Compares, writes and prints."""
  results = check(dj.load_run(_WORKDIR.value, _CONFIG.value))
  text = json.dumps(results, indent=2)
  (Path(_WORKDIR.value) / "early_exit.json").write_text(text)
  print("\n| | queries | other index | other label | logits apart | drawn | of | fewer |")
  print("|---|---|---|---|---|---|---|---|")
  for name, row in results.items():
    print(
      f"| {name} | {row['queries']:,} | {row['different_index']} | {row['different_label']} "
      f"| {row['largest_difference_of_logits']:.1e} | {row['drawn_per_query']:.2f} "
      f"| {row['num_candidates']} | {row['fewer_evaluations']:.1f}x |"
    )
  for name, row in results.items():
    for difference in row["differences"]:
      print(f"{name}: {difference}")


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
