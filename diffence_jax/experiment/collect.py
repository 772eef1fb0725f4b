"""What came of an experiment, as the report has it."""

import dataclasses

import numpy as np

from diffence_jax.audit.agreement import agreement
from diffence_jax.audit.typed import to_plain
from diffence_jax.experiment.config import as_json
from diffence_jax.experiment.plan import Experiment
from diffence_jax.experiment.stages.classifier import TrainedClassifier
from diffence_jax.experiment.store import Store
from diffence_jax.report.results import (
  SCHEMA,
  AnswerTime,
  ClassifierFacts,
  DataFacts,
  DefenseFacts,
  DiffusionFacts,
  PurifyFacts,
  Results,
  ShadowResults,
)

# Examples on the private page.
_NUM_EXPOSED = 10


def results_of(experiment: Experiment, store: Store) -> Results:
  """The content of `results.json`, of an experiment that is computed."""
  settings, rows = experiment.settings, experiment.audit.load(store)
  classifier, diffusion = experiment.classifier, experiment.diffusion
  pool = experiment.audit.pool
  reported = pool.reported(settings.audit.protocol)
  sizes = {group: len(ids) for group, ids in experiment.split.groups().items()}
  image_shape = experiment.dataset.images.shape[1:]
  return Results(
    schema=SCHEMA,
    experiment=settings.name,
    variant=settings.variant,
    seed=settings.seed,
    protocol=settings.audit.protocol,
    device=store.record["device"],
    versions=store.record["versions"],
    settings=as_json(settings),
    data=DataFacts(
      settings.data.source,
      image_shape,
      experiment.dataset.num_classes,
      **sizes,
      largest_class=_largest_class(experiment),
    ),
    purify=PurifyFacts(**dataclasses.asdict(settings.purify)),
    defense=_defense(experiment),
    classifier=ClassifierFacts(
      model=classifier.architecture,
      num_parameters=classifier.num_parameters,
      train_accuracy=rows[0].member_accuracy.value,
      test_accuracy=rows[0].test_accuracy.value,
    ),
    diffusion=DiffusionFacts(
      model=diffusion.architecture,
      num_parameters=diffusion.num_parameters,
      trained_on=diffusion.group,
      loss=diffusion.last_loss(store),
    ),
    predictors=rows,
    agreement=agreement(experiment.audit.load_scores(store), pool.is_member, reported),
    answer_time=_answer_time(experiment, store),
    shadow=_shadow(experiment, store),
    left_out=experiment.left_out,
  )


def arrays_of(experiment: Experiment, store: Store) -> dict[str, np.ndarray]:
  """What the plots of the report show, of an experiment that is computed.

  With shadow models there are, for the private page, the examples that the undefended
  classifier exposes most: "exposed/at" i64[E], places in the pool, with "exposed/ids",
  "exposed/labels", "exposed/is_member" and "exposed/images" u8[E,H,W,C].
  """
  arrays = experiment.audit.load_arrays(store) | experiment.samples.load(store)
  if experiment.shadow_audit is None:
    return arrays
  arrays |= experiment.shadow_audit.load_arrays(store)
  pool, samples = experiment.audit.pool, experiment.audit.samples
  names = [predictor.name for predictor in experiment.audit.predictors]
  aucs = np.nan_to_num([arrays[f"{name}/example_auc"] for name in names])
  # Of few models many are tied: then who is exposed behind the policies too.
  at = np.lexsort((-aucs.mean(axis=0), -aucs[0]))[:_NUM_EXPOSED]
  return arrays | {
    "exposed/at": at,
    "exposed/ids": pool.ids[at],
    "exposed/labels": pool.labels[at],
    "exposed/is_member": pool.is_member[at],
    "exposed/images": np.asarray(samples.take(at).images),
  }


def _largest_class(experiment: Experiment) -> float:
  labels = experiment.dataset.take(experiment.split.target_nonmembers).labels
  return float(np.bincount(labels).max() / len(labels))


def _answer_time(experiment: Experiment, store: Store) -> AnswerTime | None:
  stage = experiment.inference_time
  if stage is None:
    return None
  times = stage.load(store)
  return AnswerTime(stage.policy, len(stage.samples), times["alone"], times["diffence"])


def _defense(experiment: Experiment) -> DefenseFacts:
  settings, options = experiment.settings, {}
  if isinstance(experiment.classifier, TrainedClassifier):
    defense = experiment.classifier.training.defense
    if defense.name != "undefended":
      options[defense.name] = to_plain(defense.options)
  if experiment.audit.output is not None:
    options[experiment.audit.output.name] = to_plain(experiment.audit.output.options)
  return DefenseFacts(
    training=settings.classifier.defense,
    output=settings.output.defense,
    options=options,
    guarantee=experiment.classifier.guarantee,
  )


def _shadow(experiment: Experiment, store: Store) -> ShadowResults | None:
  """What shadow models show; None for an audit without them."""
  stage = experiment.shadow_audit
  if stage is None:
    return None
  tables = stage.load(store)
  num_examples = len(stage.pool.ids)
  return ShadowResults(
    **{field.name: getattr(tables, field.name) for field in dataclasses.fields(tables)},
    num_models=len(stage.shadow_queries.shadow.models),
    num_examples=num_examples,
    num_canaries=int(stage.pool.is_canary.sum()),
    train_size=num_examples // 2,
    target_train_size=experiment.classifier.num_trained_on,
    optimised=experiment.optimised.load(store) if experiment.optimised else (),
  )
