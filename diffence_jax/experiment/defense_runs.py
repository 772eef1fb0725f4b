"""Runs one experiment for each defense and seed, and tables them beside each other."""

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from diffence_jax import data
from diffence_jax.audit.typed import to_plain
from diffence_jax.data import SOURCES
from diffence_jax.defense.output import OUTPUT_DEFENSES
from diffence_jax.disk import private_files
from diffence_jax.experiment.collect import results_of
from diffence_jax.experiment.config import validate
from diffence_jax.experiment.plan import Experiment, plan
from diffence_jax.experiment.run import compute, open_store
from diffence_jax.experiment.stages.inference_time import ROUNDS
from diffence_jax.experiment.stages.queries import record_together
from diffence_jax.experiment.store import Store, locked
from diffence_jax.named import option_key
from diffence_jax.report import Results, table
from diffence_jax.report.cells import WIDTH
from diffence_jax.report.summary import caution
from diffence_jax.tables.defense_rows import COLUMNS
from diffence_jax.tables.defense_table import format_defense_table, write_defense_table

TITLES = {
  "undefended": "undefended",
  "early_stopping": "early stopping",
  "label_smoothing": "label smoothing",
  "confidence_penalty": "confidence penalty",
  "selena": "SELENA",
  "advreg": "AdvReg",
  "hamp": "HAMP",
  "relaxloss": "RelaxLoss",
  "ccl": "CCL",
  "dpsgd": "DP-SGD",
  "dpsgd_tuned": "DP-SGD, tuned",
  "memguard": "MemGuard",
}
# What is needed before the queries of all defenses are recorded together.
_BEFORE_QUERIES = ("split", "classifier", "diffusion")


def run_defense_table(
  config: ConfigDict,
  workdir: Path,
  defenses: Sequence[str],
  seeds: Sequence[int],
  width: int = WIDTH,
) -> str:
  """Runs all experiments and writes the table.

  Args:
    config: of the undefended experiment.
    workdir: for the artifacts of all experiments, and the table.
    defenses: by name, "undefended" first; one of a user's own is "module:function" where it
      trains, "output=module:function" where it changes answers.
    seeds: of the runs.
    width: of the terminal, in columns.

  Returns:
    The table as text.

  Raises:
    ValueError: a setting, a defense or the data are not right; before anything is computed.
  """
  chosen = validate(config_of(config, "undefended", seeds[0], defenses)).data
  dataset = data.load(SOURCES.choose(chosen.source, chosen.options))
  experiments = {
    (seed, defense): plan(config_of(config, defense, seed, defenses), dataset)
    for seed in seeds
    for defense in defenses
  }
  for experiment in experiments.values():
    _check_columns(experiment)
  store, cells = open_store(workdir), []
  with private_files(), locked(workdir):
    for seed in seeds:
      of_seed = {defense: experiments[seed, defense] for defense in defenses}
      for defense, experiment in of_seed.items():
        print(f"{defense}, seed {seed}", file=sys.stderr)
        compute(experiment, store, _BEFORE_QUERIES)
      settings = experiments[seed, "undefended"].settings
      record_together([e.queries for e in of_seed.values()], store, settings.compute)
      for defense, experiment in of_seed.items():
        print(f"{defense}, seed {seed}", file=sys.stderr)
        # Images to look at are for the report of a single run.
        names = [name for name in experiment.stages if name != "samples"]
        compute(experiment, store, names)
        cells.append(_cell(experiment, store, defense))
  results = results_of(experiments[seeds[0], "undefended"], store)
  title = f"{results.experiment}, seeds {', '.join(map(str, seeds))}"
  write_defense_table(title, cells, _facts(results, cells), workdir)
  return format_defense_table(title, cells, width)


def config_of(
  config: ConfigDict, defense: str, seed: int, defenses: Collection[str] = ()
) -> ConfigDict:
  """The experiment of one defense; an output defense stands on the undefended classifier.

  Options of a user's own among the other `defenses` are left out: where it is not chosen they
  would be taken for those of a misspelt one.
  """
  config = config.copy_and_resolve_references()
  config.seed = seed
  functions = {option_key(name) for name in defenses if ":" in name}
  for function in (functions - {option_key(defense)}) & set(config.defenses):
    del config.defenses[function]
  kind, _, name = defense.rpartition("=")
  if kind == "output" or defense in OUTPUT_DEFENSES.known:
    config.output.defense = name
  else:
    config.classifier.defense = defense
  return config


def _check_columns(experiment: Experiment) -> None:
  """Raises ValueError where a column of the table would be empty."""
  audited = [predictor.name for predictor in experiment.audit.predictors[1:]]
  if missing := [name for name in COLUMNS[1:] if name not in audited]:
    raise ValueError(
      f"purify.policies is {experiment.settings.purify.policies}; the table of defenses has "
      f"columns for {', '.join(missing)} too. Add them."
    )


def _cell(experiment: Experiment, store: Store, defense: str) -> dict[str, Any]:
  """What the table shows of one defense and one seed, JSON-able."""
  results = results_of(experiment, store)
  trained = store.manifest(experiment.classifier)
  guarantee, options = results.defense.guarantee, results.defense.options
  if guarantee:
    # The noise that was taken, where none was given.
    noise = {"noise_multiplier": guarantee.noise_multiplier}
    options = {name: {**given, **noise} for name, given in options.items()}
  return {
    "defense": defense,
    "title": TITLES.get(defense, defense),
    "seed": experiment.settings.seed,
    "caution": caution(results),
    "options": options,
    "predictors": to_plain(results.predictors),
    # Of a training that was killed only the seconds after it are known.
    "train_seconds": None if trained["resumed"] else trained["seconds"],
    "inference_ms": experiment.inference_time.load(store),
    "epsilon": guarantee and {"epsilon": guarantee.epsilon, "delta": guarantee.delta},
  }


def _facts(results: Results, cells: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
  """What was measured, and of the seeds in common; pairs of a name and a sentence."""
  in_common = dict(table.facts(results))
  facts = [(name, in_common[name]) for name in ("data", "samples", "Diffence", "protocol")]
  for name, about in (("classifier", results.classifier), ("diffusion", results.diffusion)):
    facts.append((name, table.network(about)))
  options = {cell["title"]: cell["options"] for cell in cells}
  described = [
    table.with_options(title, options_of_one)
    for title, given in options.items()
    for options_of_one in given.values()
  ]
  versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
  inference = (
    f"timed on {results.answer_time.num_images} target non-members in one batch, on one "
    f"device, compiled; the median of {ROUNDS} rounds; with Diffence in scenario 3"
  )
  return [
    *facts,
    ("defenses", "; ".join(described)),
    ("inference", inference),
    ("machine", results.device),
    ("versions", versions),
  ]
