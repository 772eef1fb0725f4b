"""Results of a real run, `configs/digits.py:audit_smoke`, and variations of them.

    PYTHONPATH=. python tests/report/report_example.py

runs it afresh and stores what came of it, as is needed where the results get other fields.
"""

import dataclasses
import functools
import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffence_jax.audit.agreement import AgreementRow
from diffence_jax.audit.chosen import ChosenRow
from diffence_jax.audit.discoveries import NamedRow
from diffence_jax.audit.rows import Highest, HighestRate, PredictorRow
from diffence_jax.audit.shadow import InTurnRow, TargetRow
from diffence_jax.audit.typed import to_plain
from diffence_jax.audit.worst_off import EpsilonRow, VulnerabilityRow
from diffence_jax.metrics import Estimate, Rate
from diffence_jax.report import Results, Timing, read_results
from diffence_jax.report.shadow_rows import NEAR

_STORED = Path(__file__).with_name("stored")
_CONFIGS = Path(__file__).parents[2] / "configs"

NAMES = ("undefended", "scenario 1", "scenario 2", "scenario 3", "average")
STAGES = (
  Timing("classifier", "0123456789abcdef", 31.4, False),
  Timing("audit", "fedcba9876543210", None, True),
)

# Round figures that a variation has in place of the run's own: the highest AUCs,
AUCS = (0.74, 0.58, 0.62, 0.61, 0.63)
GAP = 0.52
# the AUC of the main attack on the target at one query,
SHADOW_AUCS = (0.80, 0.60, 0.64, 0.63, 0.65)
# what the next number of queries adds to it, what it has more over all models in turn,
STEP = 0.05
MORE = 0.01
# and what other attacks, and other ways of asking, have less; those that are run on the target
# alone have less than all others.
_LESS = {
  "lira_online": 0.0, "rmia_online": 0.02, "lira_offline": 0.03, "rmia_offline": 0.04,
  "confidence": 0.05,
}  # fmt: skip
_ON_TARGET_ALONE = 0.06
_LOST = {
  ("same", "defended"): 0.0, ("same", "raw"): 0.01, (NEAR, "defended"): 0.02,
  (NEAR, "raw"): 0.03,
}  # fmt: skip


@functools.cache
def stored() -> Results:
  """What the run found."""
  return read_results(_STORED / "audit_smoke.json")


def stored_arrays() -> dict[str, np.ndarray]:
  """What the plots of its report show."""
  with np.load(_STORED / "audit_smoke.npz", allow_pickle=False) as arrays:
    return dict(arrays)


def run_afresh(workdir: Path) -> tuple[Results, dict[str, np.ndarray]]:
  """Runs the same experiment, and gives its results and the arrays of its plots."""
  from diffence_jax.experiment.collect import arrays_of
  from diffence_jax.experiment.plan import plan
  from diffence_jax.experiment.run import open_store, run

  spec = importlib.util.spec_from_file_location("digits_config", _CONFIGS / "digits.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("audit_smoke")
  results = run(config, workdir)
  return results, arrays_of(plan(config), open_store(workdir))


def store(results: Results, arrays: Mapping[str, np.ndarray]) -> None:
  """Makes these the stored ones."""
  _STORED.mkdir(exist_ok=True)
  text = json.dumps(to_plain(results), sort_keys=True, separators=(",", ":"))
  (_STORED / "audit_smoke.json").write_text(text + "\n")
  np.savez_compressed(_STORED / "audit_smoke.npz", **arrays)


def estimate(value: float, half: float = 0.04) -> Estimate:
  """A figure with an interval around it."""
  return Estimate(value, value - half, value + half)


def mapped(value: Any, kind: type | tuple[type, ...], change: Callable[[Any], Any]) -> Any:
  """A copy of rows within rows, where `change` of it is in the place of every `kind`."""
  again = lambda own: mapped(own, kind, change)
  if dataclasses.is_dataclass(value):
    fields = {f.name: again(getattr(value, f.name)) for f in dataclasses.fields(value)}
    value = dataclasses.replace(value, **fields)
  elif hasattr(value, "_replace"):
    value = value._replace(**{name: again(own) for name, own in value._asdict().items()})
  elif isinstance(value, tuple):
    value = tuple(map(again, value))
  return change(value) if isinstance(value, kind) else value


def changed(results: Results | None = None, **fields: Any) -> Results:
  """The stored results, or others, with other fields."""
  return dataclasses.replace(results or stored(), **fields)


def with_shadow(results: Results | None = None, **fields: Any) -> Results:
  """Other fields of what shadow models show."""
  results = results or stored()
  return changed(results, shadow=dataclasses.replace(results.shadow, **fields))


def without_shadow(results: Results | None = None) -> Results:
  """An audit without shadow models."""
  alone = with_predictors(
    results or stored(), lambda row: dataclasses.replace(row, chosen=None)
  )
  return changed(alone, shadow=None)


def with_predictors(results: Results, change: Callable, *values: Sequence[Any]) -> Results:
  """Every predictor's row becomes `change` of it and of its own of the `values`."""
  rows = [change(*each) for each in zip(results.predictors, *values, strict=True)]
  return changed(results, predictors=tuple(rows))


def with_aucs(
  aucs: Sequence[float] = AUCS,
  label_changes: Sequence[int] = (0, 0, 0, 0, 9),
  results: Results | None = None,
) -> Results:
  """Round figures in the main table.

  Args:
    aucs: the highest attack AUC of every predictor, of the loss with a threshold a class.
    label_changes: the labels that each predictor changes, of 1,200.
    results: with other figures; None for the stored ones.

  Returns:
    The results; all other attacks reach less, the gap attack `GAP`.
  """

  def change(row, auc, changes):
    relative = None if row.name == NAMES[0] else auc / aucs[0] - 1.0
    best = {"attack": "loss", "title": "loss", "threshold": "per_class"}
    accuracy = estimate(0.5 + 0.8 * (auc - 0.5))
    return dataclasses.replace(
      row,
      label_changes=changes,
      num_labels=1200,
      gap=estimate(GAP, 0.01),
      excess=auc - GAP,
      attacks=tuple(
        attack._replace(auc=estimate(_of_attack(attack, auc))) for attack in row.attacks
      ),
      highest_auc=Highest(**best, **estimate(auc)._asdict(), relative_change=relative),
      highest_accuracy=Highest(**best, **accuracy._asdict(), relative_change=relative),
    )

  return with_predictors(results or stored(), change, aucs, label_changes)


def _of_attack(attack, auc):
  if attack.name == "correctness":
    return GAP
  return auc if (attack.name, attack.threshold) == ("loss", "per_class") else auc - 0.01


def with_shadow_aucs(
  aucs: Sequence[float] = SHADOW_AUCS,
  queries: Sequence[int] = (1, 4, 16),
  step: float = STEP,
  results: Results | None = None,
  **fields: Any,
) -> Results:
  """Round figures in the tables about shadow models.

  Args:
    aucs: of online LiRA on the target at one query, of every predictor; the other attacks, and
      other ways of asking, have less; all have more by `MORE` over all models in turn.
    queries: the numbers of queries, each adding `step` to what the one before it reached.
    step: what they add.
    results: with other figures; None for those of `with_aucs`.
    **fields: other fields of what shadow models show.

  Returns:
    The results; rows about more than one query stand on the run's own.
  """
  results = results or with_aucs()
  of = dict(zip(NAMES, aucs, strict=True))

  def value(row, at):
    return of[row.predictor] + at * step - _LESS.get(row.attack, _ON_TARGET_ALONE)

  def adaptive(row, at):
    lost = _LOST[row.inputs, row.shadow_models]
    return dataclasses.replace(row, queries=queries[at], auc=estimate(value(row, at) - lost))

  def in_turn(row, at):
    found = value(row, at)
    change = estimate(found - (aucs[0] - _LESS[row.attack]), 0.002)
    return dataclasses.replace(
      row,
      queries=queries[at],
      auc=estimate(found + MORE, 0.004),
      auc_change=None if row.predictor == NAMES[0] else change,
    )

  def spread(rows, change):
    # The run has rows at one query and at two: the latter stand for any larger number.
    return tuple(
      change(row, at)
      for row in rows
      for at in ([0] if row.queries == 1 else range(1, len(queries)))
    )

  own = results.shadow
  found = {
    "adaptive": spread(own.adaptive, adaptive),
    "samples": spread(own.samples, in_turn),
    "canaries": spread(own.canaries, in_turn),
  }
  return with_shadow(results, **found | fields)


def with_enough(enough: Sequence[bool], results: Results | None = None) -> Results:
  """Whether the samples are large enough for the rates at 0.1% and at 1%, for all of them."""
  large = dict(zip((0.001, 0.01), enough, strict=True))
  results = mapped(
    results or stored(), Rate, lambda rate: rate._replace(enough=large[rate.limit])
  )
  return mapped(
    results, HighestRate, lambda rate: dataclasses.replace(rate, enough=large[rate.limit])
  )


def with_attack(
  name: str, title: str, family: str, results: Results | None = None, like: str = "rmia_online"
) -> Results:
  """One more attack, wherever the attack `like` is, with its figures."""

  def more(rows):
    named = {"title": title, "family": family}
    of_predictor = [
      dataclasses.replace(row, attack=name, **named) for row in rows if row.attack == like
    ]
    return (*rows, *of_predictor)

  def change(row):
    (found,) = (attack for attack in row.attacks if attack.name == like)
    own = found._replace(name=name, title=title, family=family)
    return dataclasses.replace(row, attacks=(*row.attacks, own))

  results = with_predictors(results or stored(), change)
  tables = ("adaptive", "samples", "label_floor", "canaries")
  return with_shadow(results, **{key: more(getattr(results.shadow, key)) for key in tables})


def renamed(old: str, new: str, results: Results | None = None) -> Results:
  """A predictor under another name, wherever it is spoken of."""

  def change(row):
    key = "name" if isinstance(row, PredictorRow) else "predictor"
    return dataclasses.replace(row, **{key: new}) if getattr(row, key) == old else row

  kinds = (PredictorRow, TargetRow, InTurnRow, VulnerabilityRow, EpsilonRow, AgreementRow,
           ChosenRow, NamedRow)  # fmt: skip
  results = mapped(results or stored(), kinds, change)
  reused = {new if name == old else name: own for name, own in results.shadow.reused.items()}
  return with_shadow(results, reused=reused)


def renamed_arrays(old: str, new: str) -> dict[str, np.ndarray]:
  """The arrays of `renamed` results."""
  return {
    f"{new}/{name.removeprefix(f'{old}/')}" if name.startswith(f"{old}/") else name: array
    for name, array in stored_arrays().items()
  }


def defended_alone() -> Results:
  """A classifier that was trained with another defense: alone, then under Diffence."""
  results = renamed("undefended", "alone")
  options = {"selena": {"num_left_out": 2, "num_teachers": 4}}
  defense = dataclasses.replace(results.defense, training="selena", options=options)
  return changed(results, defense=defense)


def paper_protocol() -> Results:
  """Known and target samples pooled, as published."""
  return changed(protocol="paper")


if __name__ == "__main__":
  with tempfile.TemporaryDirectory() as folder:
    store(*run_afresh(Path(folder)))
