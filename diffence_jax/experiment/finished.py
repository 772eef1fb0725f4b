"""The parts of a finished run, to go on with as a library."""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from diffence_jax import models
from diffence_jax.audit.in_turn_file import ScoresInTurn
from diffence_jax.defense import Policy, protect
from diffence_jax.defense.protect import ProtectedPredict
from diffence_jax.diffusion import Schedule, denoiser_beside
from diffence_jax.disk import damaged
from diffence_jax.experiment.plan import Experiment, plan
from diffence_jax.experiment.run import usual_jax
from diffence_jax.experiment.stage import Stage
from diffence_jax.experiment.store import Store
from diffence_jax.named import nearest
from diffence_jax.predictor import Bound, Denoise, Predict


class RunScores(NamedTuple):
  """What the attacks of a run say of every sample, higher for likelier members.

  Attributes:
    ids: i64[N], the samples' stable ids.
    labels: i[N].
    is_member: bool[N], whether the classifier was trained on it.
    is_known: bool[N], whether attacker and defender were told so; figures are of the others.
    by_policy: name of a policy, "undefended" among them, to name of an attack to f64[N]; NaN
      for samples that the attack did not judge.
  """

  ids: np.ndarray
  labels: np.ndarray
  is_member: np.ndarray
  is_known: np.ndarray
  by_policy: dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class FinishedRun:
  """The parts of a finished run, each read from the workdir and verified when it is asked for.

  They raise FileNotFoundError where the run has not come so far, and `disk.ArtifactError`
  where an artifact is damaged.

  Attributes:
    experiment: its data, split and settings.
    store: its artifacts.
  """

  experiment: Experiment
  store: Store

  @functools.cached_property
  def classifier(self) -> Bound:
    """The classifier: (module, or a function of variables and images; variables)."""
    return self._load(self.experiment.classifier)

  @functools.cached_property
  def diffusion(self) -> Bound:
    """The diffusion model as it re-generates images: (module, variables)."""
    return self.experiment.purification.network(self._load(self.experiment.diffusion))

  @functools.cached_property
  def predict(self) -> Predict:
    """The classifier as a predictor."""
    return models.predictor(*self.classifier)

  @functools.cached_property
  def denoise(self) -> Denoise:
    """The diffusion model as a function of noised images and steps.

    A class-conditional one re-generates under the label that the classifier predicts.
    """
    # The classifier is read for a network that asks it only: there may be none yet.
    if models.is_conditional(self.diffusion.module):
      return denoiser_beside(*self.diffusion, self.predict)
    return models.denoiser(*self.diffusion)

  @functools.cached_property
  def schedule(self) -> Schedule:
    """The noise schedule, respaced where the run's is."""
    return self.experiment.purification.sampler_schedule()

  @property
  def settings(self) -> dict[str, Any]:
    """How candidates are drawn: `num_candidates`, `step` and the rest, for `protect`."""
    num_candidates = self.experiment.settings.purify.num_candidates
    return {"num_candidates": num_candidates, **self.experiment.purification.sampler}

  @functools.cached_property
  def policies(self) -> dict[str, Policy]:
    """The policies by name, fitted as they were audited, the undefended one first.

    That of an interval has it as `interval`.
    """
    self._open(self.experiment.queries)
    with usual_jax():
      fitted = self.experiment.audit.load_predictors(self.store)
    return {defended.predictor.policy.name: defended.policy for defended in fitted}

  @functools.cached_property
  def scores(self) -> RunScores:
    """The scores that the report's figures about the target are made of."""
    self._open(self.experiment.audit)
    audit, by_policy = self.experiment.audit, {}
    names = {predictor.name: predictor.policy.name for predictor in audit.predictors}
    for predictor, attack, scores in audit.load_scores(self.store):
      by_policy.setdefault(names[predictor], {})[attack] = scores
    pool = audit.pool
    return RunScores(pool.ids, pool.labels, pool.is_member, pool.is_known, by_policy)

  @functools.cached_property
  def scores_in_turn(self) -> ScoresInTurn:
    """The scores with every shadow model as the target in turn, and who was trained on what.

    Raises:
      ValueError: the run has no shadow models.
    """
    if self.experiment.shadow_audit is None:
      raise ValueError(
        "The run has no shadow models, so none is attacked in turn; set shadow.num_models."
      )
    self._open(self.experiment.shadow_audit)
    return self.experiment.shadow_audit.load_in_turn(self.store)

  def protect(self, policy: str | None = None, **changes: Any) -> ProtectedPredict:
    """The classifier, protected as its report says.

    Args:
      policy: a name of `policies`; None for the first one that defends.
      **changes: settings of `defense.protect` that differ, such as `randomness`.

    Returns:
      A predictor, as `defense.protect` returns it.

    Raises:
      ValueError: there is no such policy, or the run has a defense of the answers, which is no
        policy.
    """
    name, settings = choose_policy(self.experiment, policy), self.experiment.settings
    if settings.output.defense != "none":
      raise ValueError(
        f"output.defense is {settings.output.defense!r}, which changes answers on the host: it "
        "is no policy, and cannot be exported; choose --config.output.defense=none."
      )
    for stage in (self.experiment.classifier, self.experiment.diffusion):
      self._open(stage)
    given = {"chunk_size": settings.compute.chunk_size, **self.settings, **changes}
    networks = self.predict, self.denoise, self.schedule
    return protect(*networks, policy=self.policies[name], **given)

  def _load(self, stage: Any) -> Bound:
    self._open(stage)
    return stage.load(self.store)

  def _open(self, stage: Stage) -> None:
    """Raises unless a stage is there, whole and undamaged."""
    self.store.open(stage)


def load_run(
  workdir: str | os.PathLike, config: ConfigDict | Mapping[str, Any] | None = None
) -> FinishedRun:
  """The parts of a run that `diffence --config=... --workdir=...` or `dj.run` has finished.

  Args:
    workdir: its workdir.
    config: its config, as `dj.run` takes it; None for that of the run that was last started in
      the workdir. Either is planned again, so the data and the functions of one's own that it
      names have to be where they were.

  Returns:
    The classifier, the diffusion model, the schedule, the policies and the scores; each is read
    when it is asked for.

  Raises:
    FileNotFoundError: there was no run, or the data are not there.
    ValueError: a setting or the data are not right.
    ArtifactError: the workdir is of another version, or its `run.json` is damaged.
  """
  store = Store(workdir)
  if config is None:
    config = _last_settings(store)
  return FinishedRun(plan(config), store)


def choose_policy(experiment: Experiment, policy: str | None) -> str:
  """The name of a policy of the experiment; ValueError, with the nearest, if there is none.

  Args:
    experiment: as `plan` makes it.
    policy: the name; None for the first one that defends.
  """
  names = [predictor.policy.name for predictor in experiment.audit.predictors]
  policy = names[1] if policy is None and len(names) > 1 else policy
  if policy not in names:
    raise ValueError(f"The run has no policy {policy!r}{nearest(str(policy), names)}")
  return policy


def _last_settings(store: Store) -> dict[str, Any]:
  """The settings of the run that was last started in a workdir."""
  file = store.workdir / "run.json"
  if not file.is_file():
    raise FileNotFoundError(
      f"There was no run in {store.workdir}, for lack of {file.name}; expected the workdir of "
      "diffence --config=... --workdir=..., or of dj.run."
    )
  try:
    settings = json.loads(file.read_text(encoding="utf-8"))["settings"]
    if not isinstance(settings, dict):
      raise TypeError
  except (ValueError, KeyError, TypeError) as error:
    remedy = "Run again with the same config, or pass it: dj.load_run(workdir, config)."
    raise damaged(file, "has no settings", remedy) from error
  return settings
