"""All attacks that a record allows, on the classifier and on every shadow model in turn."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from diffence_jax import metrics
from diffence_jax.attacks import View, run_attack
from diffence_jax.attacks.attack import ATTACKS, DEFAULT_ATTACKS, declaration_of
from diffence_jax.attacks.signals import phi_and_log_p
from diffence_jax.audit.chosen_target import with_chosen
from diffence_jax.audit.judge import LIMITS, Fold, judge_folds
from diffence_jax.audit.label_floor import floor_attacks, with_label_floor
from diffence_jax.audit.rows import PredictorRow, arrays_of, compared, predictor_row
from diffence_jax.metrics import Estimate
from diffence_jax.named import Choice
from diffence_jax.progress import progress_bar
from diffence_jax.recorded.in_turn import audit_in_turn, labels_in_turn
from diffence_jax.recorded.labels_alone import labels_alone
from diffence_jax.recorded.record import UNDEFENDED, LogitRecord
from diffence_jax.recorded.results import SCHEMA, RecordResults, SliceRow
from diffence_jax.report.versions import package_versions

MAIN_ATTACK = "lira_online"
# Of each side: a figure of fewer would be about single samples.
LEAST_IN_SLICE = 10
# By what an attack needs; first what a record cannot have.
_REMEDIES = {
  "ask": "a classifier that can be asked, and the images (diffence audit --predict=...)",
  "networks": "the networks of shadow models, as an experiment has them",
  "images": "the images (diffence audit --predict=...)",
  "shadows": "shadow_logits and shadow_membership",
  "known": "more samples marked in is_known, of either side",
}


class Asked(NamedTuple):
  """The classifier of a record, where it can be asked again.

  Attributes:
    ask: as of `View`.
    images: u8[N,H,W,C], or f32[N,H,W,C] from 0 to 255.
    num_few: how many samples attacks that ask for a thousand labels of each are run on.
    options: attack to those of its options that are not as by default.
  """

  ask: Callable[[jax.Array], jax.Array]
  images: np.ndarray
  num_few: int
  options: Mapping[str, Mapping[str, Any]]


class Scores(NamedTuple):
  """One attack's scores of all samples, fold by fold.

  Attributes:
    choice: the attack.
    of_folds: f64[N] for every fold; NaN for samples that it was not run on.
  """

  choice: Choice
  of_folds: list[np.ndarray]

  def reported(self, folds: Sequence[Fold]) -> np.ndarray:
    """f64[N], of every sample in the fold that reports it; NaN for those that none does."""
    scores = np.full(len(self.of_folds[0]), np.nan)
    for fold, of_fold in zip(folds, self.of_folds, strict=True):
      scores[fold.is_reported] = of_fold[fold.is_reported]
    return scores


class Audited(NamedTuple):
  """What came of the attacks on a record.

  Attributes:
    results: for the report.
    arrays: for its figures, as `rows.arrays_of` and `shadow.in_turn_tables` name them.
    scores: predictor to attack to f64[N], NaN for samples that are not reported.
  """

  results: RecordResults
  arrays: dict[str, np.ndarray]
  scores: dict[str, dict[str, np.ndarray]]


def audit(
  record: LogitRecord,
  *,
  attacks: Sequence[str] = DEFAULT_ATTACKS,
  seed: int = 0,
  asked: Asked | None = None,
) -> Audited:
  """Runs all attacks that a record allows.

  Args:
    record: as `read_record` returns it.
    attacks: names from `ATTACKS`, or "module:function"; the gap attack, `correctness`, is run
      in any case.
    seed: of what attacks draw, and of the halves where no sample is known.
    asked: the undefended classifier itself and the images, for attacks that ask; None without.

  Returns:
    The results.

  Raises:
    ValueError: there is no such attack, none of them can be run, one returned no scores, or a
      shadow model's answer is no number.
  """
  options = asked.options if asked else {}
  choices = [
    ATTACKS.choose(name, options.get(name)) for name in dict.fromkeys(("correctness", *attacks))
  ]
  for ensemble in record.ensembles.values():
    # Nearly all attacks read it. Within one of them NaN would look like something it lacks.
    ensemble.statistic(phi_and_log_p)
  folds = _folds(record, seed)
  reported = record.pool._replace(is_known=~np.any([f.is_reported for f in folds], axis=0))
  rows, arrays, scores, left_out = [], {}, {}, {}
  with progress_bar(len(record.predictors) * len(choices), "attacks", "attack") as bar:
    for recorded in record.predictors:
      attacked = _attack(recorded, record, folds, choices, seed, left_out, bar, asked)
      row, roc = _row(recorded, record, reported, folds, attacked)
      rows.append(row)
      arrays |= arrays_of(recorded.name, recorded.logits[:, 0], reported, roc)
      scores[recorded.name] = {one.choice.name: one.reported(folds) for one in attacked}
      if recorded.name == UNDEFENDED:
        _check_run(attacks, attacked, left_out)
        asking = [one for one in attacked if "ask" in declaration_of(one.choice.name).needs]
    alone = labels_alone(record, folds)
    reading = [one for one in floor_attacks(choices) if one not in [a.choice for a in asking]]
    attacked = _attack(alone.predictors[0], alone, folds, reading, seed, {}, bar, None)
    floor, _ = _row(alone.predictors[0], alone, reported, folds, [*attacked, *asking])
  rows = _compared(with_label_floor(rows, floor.highest_auc))
  in_turn = audit_in_turn(record, choices, MAIN_ATTACK, seed=seed)
  rows = with_chosen(rows, in_turn.tables["samples"])
  of_labels = labels_in_turn(alone, in_turn, choices, seed=seed)
  slices, slices_left_out = _slices(record, rows, scores)
  is_reported = ~reported.is_known
  results = RecordResults(
    schema=SCHEMA,
    versions=package_versions("diffence_jax", "jax", "numpy", "scipy"),
    seed=seed,
    num_samples=len(record.labels),
    num_classes=record.predictors[0].logits.shape[-1],
    num_members=int(np.sum(is_reported & record.is_member)),
    num_nonmembers=int(np.sum(is_reported & ~record.is_member)),
    num_models=0 if record.shadow_membership is None else len(record.shadow_membership),
    thresholds="halves" if record.is_known is None else "known",
    predictors=rows,
    main_attack=in_turn.main_title,
    in_turn=(*in_turn.tables["samples"], *of_labels),
    vulnerability=tuple(in_turn.tables["vulnerability"]),
    chosen=tuple(in_turn.tables["chosen"]),
    named=tuple(in_turn.tables["named"]),
    epsilon=tuple(in_turn.tables["epsilon"]),
    slices=tuple(slices),
    slices_left_out=tuple(slices_left_out),
    left_out=left_out | in_turn.left_out,
  )
  return Audited(results, arrays | in_turn.arrays, scores)


def _folds(record: LogitRecord, seed: int) -> list[Fold]:
  """Who is known and who is reported; the scores are still to come.

  Where nothing says who is known each half of both sides is, for the other half.
  """
  num = len(record.labels)
  if record.is_known is not None:
    folds = [(record.is_known, ~record.is_known)]
  else:
    first, second = np.zeros((2, num), bool)
    draw = np.random.default_rng([seed, num])
    for side in (record.is_member, ~record.is_member):
      rows = draw.permutation(np.flatnonzero(side))
      # Of one size, so that nothing is compiled twice: an odd one is reported only.
      size = len(rows) // 2
      first[rows[:size]], second[rows[size : 2 * size]] = True, True
    folds = [(first, ~first), (second, first)]
  return [
    Fold(np.zeros(num), record.pool._replace(is_known=known), reported)
    for known, reported in folds
  ]


def _compared(rows: Sequence[PredictorRow]) -> tuple[PredictorRow, ...]:
  """The rows with changes to the first, where as many attacks were run."""
  attacks = [{attack.name for attack in row.attacks} for row in rows]
  pairs = zip(rows, compared(rows), attacks, strict=True)
  return tuple(after if attacks[0] <= tried else row for row, after, tried in pairs)


def _attack(recorded, record, folds, choices, seed, left_out, bar, asked) -> list[Scores]:
  """What every attack that can be run says about one predictor."""
  asked = asked if recorded.name == UNDEFENDED else None
  views = [
    View(
      recorded.logits,
      record.labels,
      is_known=fold.pool.is_known,
      is_member=fold.pool.is_member,
      shadows=record.ensembles.get(recorded.name),
      images=asked and asked.images,
      ask=asked and asked.ask,
      seed=seed,
      name=recorded.name,
    )
    for fold in folds
  ]
  few = _few(folds, asked.num_few) if asked else np.arange(0)
  attacked = []
  for choice in choices:
    declared = declaration_of(choice.name)
    bar.update(1)
    if missing := [need for view in views for need in view.lacks(declared)]:
      remedy = next(text for need, text in _REMEDIES.items() if need in missing)
      _leave_out(left_out, recorded, declared.title, f"need {remedy}")
      continue
    if declared.many_labels:
      if len(few):
        attacked.append(Scores(choice, [_on_few(choice, views[0], few)] * len(folds)))
      else:
        _leave_out(left_out, recorded, declared.title, "need samples to be run on")
      continue
    # Only attacks that look at known samples have other scores in the other fold.
    once = views if "known" in declared.needs else views[:1]
    try:
      of_folds = [run_attack(choice, view) for view in once]
    except ValueError as error:
      if "shadows" not in declared.needs:
        raise
      _leave_out(left_out, recorded, declared.title, str(error))
      continue
    attacked.append(Scores(choice, of_folds * (len(folds) // len(of_folds))))
  return attacked


def _check_run(attacks, attacked, left_out):
  """Raises ValueError where none of the attacks that were asked for could be run."""
  if attacks and not {one.choice.name for one in attacked} & set(attacks):
    reasons = "; ".join(
      f"{name} would {left_out[declaration_of(name).title]}" for name in attacks
    )
    raise ValueError(f"None of the attacks can be run: {reasons}.")


def _few(folds, num) -> np.ndarray:
  """Places of some samples, as many of either side, known or not in the first fold."""
  known, is_member = folds[0].pool.is_known, folds[0].pool.is_member
  # Folds are drawn by chance; what stands first in the data may be of one class.
  draw = np.random.default_rng([1, len(known)])
  groups = [draw.permutation(np.flatnonzero((known == k) & (is_member == m)))
            for k in (True, False) for m in (True, False)]  # fmt: skip
  return np.sort(np.concatenate([group[: num // 4] for group in groups]))


def _on_few(choice, view, rows) -> np.ndarray:
  """The scores f64[N] of an attack that is run on some samples, NaN for the others."""
  scores = np.full(len(view.labels), np.nan)
  scores[rows] = run_attack(choice, view.take(rows))
  return scores


def _leave_out(left_out, recorded, title, reason):
  """Notes it; behind a defense only where it is not left out without."""
  if left_out.get(title) != reason:
    left_out[title if recorded.name == UNDEFENDED else f"{title} behind {recorded.name}"] = (
      reason
    )


def _row(recorded, record, reported, folds, attacked) -> tuple[PredictorRow, metrics.Roc]:
  judged, of_few = [], []
  for choice, of_folds in attacked:
    scored = [_inside(fold, scores) for fold, scores in zip(folds, of_folds, strict=True)]
    declared = declaration_of(choice.name)
    if declared.many_labels:
      title = f"{declared.title}, of {np.sum(~np.isnan(of_folds[0]))} samples"
      of_few += judge_folds(choice.name, dataclasses.replace(declared, title=title), scored)
    else:
      judged += judge_folds(choice.name, declared, scored)
  # Usefulness is that of the first answer.
  row, roc = predictor_row(
    recorded.name,
    recorded.logits[:, 0],
    record.predictors[0].logits[:, 0],
    reported,
    judged,
    protocol="disjoint",
    policy=recorded.name,
    interval=None,
    returned_raw=None,
    labels_kept=None,
  )
  # Of so few samples the highest figure would be highest by chance.
  return dataclasses.replace(row, attacks=(*row.attacks, *(few for few, _ in of_few))), roc


def _inside(fold, scores) -> Fold:
  """A fold with these scores, of the samples that have one."""
  inside = ~np.isnan(scores)
  pool = fold.pool._replace(is_known=fold.pool.is_known & inside)
  return Fold(scores, pool, fold.is_reported & inside)


def _slices(record, rows, scores):
  """A row for every group that is large enough and every predictor, and the other groups."""
  if record.groups is None:
    return [], []
  sliced, left_out = [], []
  for group in np.unique(record.groups):
    for recorded, row in zip(record.predictors, rows, strict=True):
      best = row.highest_auc
      of_attack = scores[recorded.name][best.attack]
      inside = (record.groups == group) & ~np.isnan(of_attack)
      sides = [inside & record.is_member, inside & ~record.is_member]
      if min(side.sum() for side in sides) < LEAST_IN_SLICE:
        left_out.append(str(group))
        break
      roc = metrics.roc(*(of_attack[side] for side in sides))
      right = np.argmax(recorded.logits[:, 0], axis=-1) == record.labels
      accuracies = [metrics.proportion(int(right[s].sum()), int(s.sum())) for s in sides]
      sliced.append(
        SliceRow(
          group=str(group),
          predictor=recorded.name,
          attack=best.attack,
          title=best.title,
          num_members=int(sides[0].sum()),
          num_nonmembers=int(sides[1].sum()),
          member_accuracy=accuracies[0],
          test_accuracy=accuracies[1],
          auc=Estimate(roc.auc, *roc.auc_interval),
          tpr_at_fpr=tuple(roc.tpr_at_fpr(limit) for limit in LIMITS),
        )
      )
  return sliced, left_out
