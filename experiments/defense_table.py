"""The paper's main table: every defense, alone and under Diffence, over seeds.

    python experiments/defense_table.py --config=configs/digits.py --workdir=runs/defenses

Every defense is an experiment of its own, with the config's options for it (`defenses.NAME`),
in one workdir: what they share, above all the diffusion model, is computed once, and every
image is re-generated once for all of them. A killed run resumes, and a finished one only
prints. Any defense can be looked at by itself with the same workdir:

    diffence --config=configs/digits.py --workdir=runs/defenses --config.classifier.defense=hamp

Writes `defense_table.txt`, `.csv`, `.html`, `.tex` and `.json` to the workdir. Cost: see
docs/results.md.
"""

import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.")
_WORKDIR = flags.DEFINE_string("workdir", None, "For the artifacts and the table.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1"], "The seeds.")
_DEFENSES = flags.DEFINE_list(
  "defenses",
  [
    "undefended",
    "early_stopping",
    "label_smoothing",
    "confidence_penalty",
    "selena",
    "advreg",
    "hamp",
    "relaxloss",
    "dpsgd",
    "memguard",
  ],
  "The defenses; undefended comes first.",
)

_TITLES = {
  "undefended": "undefended",
  "early_stopping": "early stopping",
  "label_smoothing": "label smoothing",
  "confidence_penalty": "confidence penalty",
  "selena": "SELENA",
  "advreg": "AdvReg",
  "hamp": "HAMP",
  "relaxloss": "RelaxLoss",
  "dpsgd": "DP-SGD",
  "memguard": "MemGuard",
}
# What all defenses of a seed share, or is needed before their queries are recorded together.
_BEFORE_QUERIES = ("split", "classifier", "diffusion")
_NEEDED = (*_BEFORE_QUERIES, "queries", "audit")

# Images whose answers are timed, and how often; the median is reported.
_TIMED_IMAGES, _ROUNDS = 64, 3


def config_of(config, defense: str, seed: int):
  """The experiment of one defense; an output defense stands on the undefended classifier."""
  from diffence_jax.defense.output import OUTPUT_DEFENSES

  config = config.copy_and_resolve_references()
  config.seed = seed
  if defense in OUTPUT_DEFENSES:
    config.output.defense = defense
  else:
    config.classifier.defense = defense
  return config


def inference_ms(experiment, store) -> dict[str, float]:
  """Milliseconds a sample, alone and with Diffence; compiled, the median of rounds."""
  from diffence_jax import audit, stages

  config = experiment.config
  classifier = stages.load_classifier(experiment, store)
  record_step = _record_step(classifier.module, experiment.denoiser.module, config.purify)
  ids = experiment.split.target_nonmembers[:_TIMED_IMAGES]
  images = experiment.dataset.take(ids).images.astype(np.float32) / 255.0
  denoiser = stages.load_denoiser(experiment, store)
  shared = (
    jax.random.key(0),
    classifier.variables,
    denoiser.variables,
    stages.schedule_of(config),
  )
  answers = audit.predictors(stages.load_records(experiment, store), config.audit.protocol)
  # What a defense of the answers adds; nothing for the others.
  finish = audit.fit_finish(answers, stages.fit_output(config, "target"))
  finish = finish.get("scenario 3", lambda logits: logits)
  predict = _predict(classifier.module)
  alone = lambda: finish(np.asarray(predict(classifier.variables, images)))

  def diffence():
    from diffence_jax.defense import select

    raw, candidates = record_step(shared, (images, np.arange(len(ids), dtype=np.int32)))
    return finish(np.asarray(select(candidates, raw).logits))

  return {
    name: 1e3 * _median_seconds(function) / len(ids)
    for name, function in (("alone", alone), ("diffence", diffence))
  }


@functools.lru_cache(maxsize=4)
def _predict(module):
  from diffence_jax import models

  return jax.jit(lambda variables, images: models.predictor(module, variables)(None, images))


@functools.lru_cache(maxsize=4)
def _record_step(module, denoiser, purify):
  from diffence_jax import parallel
  from diffence_jax.queries import make_record_step

  settings = {name: value for name, value in purify.items() if name != "batch_size"}
  one_device = parallel.batch_mesh(jax.local_devices()[:1])
  return make_record_step(module, denoiser, one_device, **settings)


def _median_seconds(function):
  function()
  seconds = []
  for _ in range(_ROUNDS):
    start = time.perf_counter()
    jax.block_until_ready(function())
    seconds.append(time.perf_counter() - start)
  return float(np.median(seconds))


def cell_of(experiment, store, defense: str, inference: dict[str, float]) -> dict[str, Any]:
  """What the table shows of one defense and one seed."""
  from diffence_jax import pipeline

  results = pipeline.results_of(experiment, store)
  guarantee = experiment.recipe.guarantee
  return {
    "defense": defense,
    "title": _TITLES.get(defense, defense),
    "seed": experiment.config.seed,
    "predictors": results["predictors"],
    "train_seconds": store.manifest(experiment.stages["classifier"])["seconds"],
    "inference_ms": inference,
    "epsilon": guarantee and dict(zip(("epsilon", "delta"), guarantee, strict=True)),
  }


def main(argv) -> None:
  """Runs all experiments and writes the table."""
  del argv
  logging.set_verbosity(logging.WARNING)
  from diffence_jax import artifacts, pipeline, stages
  from diffence_jax.artifacts import Stage
  from diffence_jax.report import table
  from diffence_jax.report.defense_table import format_defense_table, write_defense_table

  defenses = list(dict.fromkeys(["undefended", *_DEFENSES.value]))
  seeds = [int(seed) for seed in _SEEDS.value]
  config, workdir = _CONFIG.value, Path(_WORKDIR.value)
  store = pipeline.open_store(workdir)
  cells = []
  with artifacts.locked(workdir):
    for seed in seeds:
      experiments = {d: pipeline.plan(config_of(config, d, seed)) for d in defenses}
      for defense, experiment in experiments.items():
        print(f"{defense}, seed {seed}")
        pipeline.compute(experiment, store, _BEFORE_QUERIES)
      stages.record_together(list(experiments.values()), store)
      for defense, experiment in experiments.items():
        print(f"{defense}, seed {seed}")
        pipeline.compute(experiment, store, _NEEDED)
        needed = [experiment.stages[name] for name in ("queries", "audit")]
        timed = Stage(
          "inference_time", stages.output_settings(experiment.config), tuple(needed)
        )

        def write(path, own=experiment):
          (path / "milliseconds.json").write_text(json.dumps(inference_ms(own, store)))

        path = store.compute(timed, write)
        inference = json.loads((path / "milliseconds.json").read_text())
        cells.append(cell_of(experiment, store, defense, inference))
  results = pipeline.results_of(experiments["undefended"], store)
  title = f"{results['experiment']}, seeds {', '.join(_SEEDS.value)}"
  facts = table.facts(results)
  write_defense_table(title, cells, facts, workdir)
  print(format_defense_table(title, cells))


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
