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
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np
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
  ["undefended", "selena", "advreg", "hamp", "relaxloss", "dpsgd", "memguard"],
  "The defenses, by name, with commas between; undefended is always among them, and first. "
  "early_stopping, label_smoothing and confidence_penalty are there too. One of your own is "
  "module:function where it trains, output=module:function where it changes answers.",
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
# What is needed before the queries of all defenses are recorded together.
_BEFORE_QUERIES = ("split", "classifier", "diffusion")

# Images whose answers are timed, and how often; the median is reported.
_TIMED_IMAGES, _ROUNDS = 64, 3


def config_of(config, defense: str, seed: int, defenses: Collection[str] = ()):
  """The experiment of one defense; an output defense stands on the undefended classifier.

  Options of a user's own among the other `defenses` are left out: where it is not chosen they
  would be taken for those of a misspelt one.
  """
  from diffence_jax.defense.output import OUTPUT_DEFENSES

  config = config.copy_and_resolve_references()
  config.seed = seed
  functions = {name.rpartition(":")[2] for name in defenses if ":" in name}
  for function in (functions - {defense.rpartition(":")[2]}) & set(config.defenses):
    del config.defenses[function]
  kind, _, own = defense.rpartition("=")
  if kind == "output" or defense in OUTPUT_DEFENSES:
    config.output.defense = own
  else:
    config.classifier.defense = defense
  return config


def inference_ms(experiment, store) -> dict[str, float]:
  """Milliseconds a sample, alone and with Diffence; compiled, the median of rounds."""
  from diffence_jax import audit, models
  from diffence_jax.experiment.stages import models as stages
  from diffence_jax.experiment.stages import queries as query_stages

  config = experiment.config
  classifier = stages.load_classifier(experiment, store)
  schedule, sampler = stages.sampler_of(config)
  settings = {k: config.purify[k] for k in ("num_candidates", "chunk_size")} | sampler
  denoiser = stages.load_purifier(experiment, store)
  record_step = _record_step(classifier.module, denoiser.module, tuple(settings.items()))
  ids = experiment.split.target_nonmembers[:_TIMED_IMAGES]
  images = np.asarray(experiment.dataset.take(ids).images, np.float32) / 255.0
  shared = (jax.random.key(0), classifier.variables, denoiser.variables, schedule)
  finish = lambda logits: logits
  if fit := stages.fit_output(config, "target"):
    answers = audit.predictors(
      query_stages.load_records(experiment, store), config.audit.protocol
    )
    chosen = [own for own in answers if own.name == "scenario 3"]
    finish = audit.fit_finish(chosen, fit)["scenario 3"]
  predict = models.compiled_predictor(classifier.module)
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
def _record_step(module, denoiser, settings):
  from diffence_jax import parallel
  from diffence_jax.audit.record import make_record_step

  one_device = parallel.batch_mesh(jax.local_devices()[:1])
  return make_record_step(module, denoiser, one_device, **dict(settings))


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
  from diffence_jax.experiment.results import results_of

  results = results_of(experiment, store)
  trained = store.manifest(experiment.stages["classifier"])
  guarantee = results["defense"]["guarantee"]
  options = results["defense"]["options"]
  if guarantee:
    # The noise that was taken, where none was given.
    noise = {"noise_multiplier": guarantee["noise_multiplier"]}
    options = {name: {**given, **noise} for name, given in options.items()}
  return {
    "defense": defense,
    "title": _TITLES.get(defense, defense),
    "seed": experiment.config.seed,
    "options": options,
    "predictors": results["predictors"],
    # Of a training that was killed only the seconds after it are known.
    "train_seconds": None if trained["resumed"] else trained["seconds"],
    "inference_ms": inference,
    "epsilon": guarantee and {name: guarantee[name] for name in ("epsilon", "delta")},
  }


def facts_of(results: dict[str, Any], cells) -> list[tuple[str, str]]:
  """What was measured, and of the seeds in common; pairs of a name and a sentence."""
  from diffence_jax.report import table

  in_common = dict(table.facts(results))
  facts = [(name, in_common[name]) for name in ("data", "samples", "Diffence", "protocol")]
  for section in ("classifier", "diffusion"):
    about = results[section]
    facts.append((section, f"{about['model']}, {about['num_parameters']:,} parameters"))
  options = {cell["title"]: cell["options"] for cell in cells}
  described = [
    table.with_options(title, own) for title, given in options.items() for own in given.values()
  ]
  versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
  timed = min(_TIMED_IMAGES, results["data"]["target_nonmembers"])
  inference = (
    f"timed on {timed} target non-members in one batch, on one device, compiled; the median of "
    f"{_ROUNDS} rounds; with Diffence in scenario 3"
  )
  return [*facts, ("defenses", "; ".join(described)), ("inference", inference),
          ("machine", results["device"]), ("versions", versions)]  # fmt: skip


def run(config, workdir: Path, defenses: list[str], seeds: list[int]) -> str:
  """Runs all experiments and writes the table, which is returned as text."""
  from diffence_jax import data
  from diffence_jax.experiment import run as pipeline
  from diffence_jax.experiment import store as artifacts
  from diffence_jax.experiment.results import results_of
  from diffence_jax.experiment.stages import models as stages
  from diffence_jax.experiment.stages import queries as query_stages
  from diffence_jax.experiment.store import Stage
  from diffence_jax.tables.defense_table import format_defense_table, write_defense_table

  # All that can be wrong with a setting is found here, before anything is computed.
  dataset = data.load(config.data.source, **config.data.options)
  experiments = {
    (seed, defense): pipeline.plan(config_of(config, defense, seed, defenses), dataset)
    for seed in seeds
    for defense in defenses
  }
  store = pipeline.open_store(workdir)
  cells = []
  with artifacts.locked(workdir):
    for seed in seeds:
      own = {defense: experiments[seed, defense] for defense in defenses}
      for defense, experiment in own.items():
        print(f"{defense}, seed {seed}", file=sys.stderr)
        pipeline.compute(experiment, store, _BEFORE_QUERIES)
      query_stages.record_together(list(own.values()), store)
      for defense, experiment in own.items():
        print(f"{defense}, seed {seed}", file=sys.stderr)
        # Images to look at are for the report of a single run.
        names = [name for name in experiment.stages if name != "samples"]
        pipeline.compute(experiment, store, names)
        settings = {**stages.output_settings(experiment.config), "images": _TIMED_IMAGES}
        timed = Stage("inference_time", settings, (experiment.stages["queries"],))

        def write(path, experiment=experiment):
          text = json.dumps(inference_ms(experiment, store))
          (path / "milliseconds.json").write_text(text)

        path = store.compute(timed, write)
        inference = json.loads((path / "milliseconds.json").read_text())
        cells.append(cell_of(experiment, store, defense, inference))
  results = results_of(experiments[seeds[0], "undefended"], store)
  title = f"{results['experiment']}, seeds {', '.join(map(str, seeds))}"
  write_defense_table(title, cells, facts_of(results, cells), workdir)
  return format_defense_table(title, cells)


def main(argv) -> None:
  """Reads the flags, and prints the table or, in a line, what is wrong."""
  del argv
  logging.set_verbosity(logging.WARNING)
  from diffence_jax.disk import ArtifactError

  defenses = list(dict.fromkeys(["undefended", *_DEFENSES.value]))
  try:
    seeds = [int(seed) for seed in dict.fromkeys(_SEEDS.value)]
    print(run(_CONFIG.value, Path(_WORKDIR.value), defenses, seeds))
  except (ValueError, OSError, ImportError, ArtifactError) as error:
    print(f"defense_table: {error}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
