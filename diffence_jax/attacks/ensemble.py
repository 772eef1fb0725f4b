"""Shadow models as attacks see them: what they answered, and whom they were trained with."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from diffence_jax.predictor import Predict

# What is read off one model: `(logits f32[N,Q,K], labels i[N], versions A) -> f[N,...]`.
Statistic = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


class Ensemble:
  """What shadow models answer, read model by model: not all of it is in memory at a time."""

  def __init__(
    self,
    membership: np.ndarray,
    read: Callable[[int], np.ndarray],
    statistic: Callable[[Statistic], np.ndarray],
  ):
    """Describes S models and N samples.

    Args:
      membership: bool[S,N], True where a model was trained with the sample.
      read: model to its answers f32[N,Q,K].
      statistic: a `Statistic` to what it reads off every model, f[S,N,...].
    """
    self.membership = membership
    self._read, self.statistic = read, statistic

  def __len__(self) -> int:
    return len(self.membership)

  def __getitem__(self, model: int) -> np.ndarray:
    """The answers f32[N,Q,K] of one model."""
    if not 0 <= model < len(self):
      raise IndexError(f"There is no shadow model {model}; there are {len(self)}.")
    return self._read(model)

  def relabelled(self, membership: np.ndarray) -> "Ensemble":
    """The same models with other memberships bool[S,N], such as drawn ones."""
    return Ensemble(membership, self._read, self.statistic)

  def take(self, models: np.ndarray, samples: np.ndarray | slice = slice(None)) -> "Ensemble":
    """Some of the models, i[T] or bool[S], about some of the samples."""
    chosen = np.arange(len(self))[models]
    return Ensemble(
      self.membership[chosen][:, samples],
      lambda model: self._read(chosen[model])[samples],
      lambda function: self.statistic(function)[chosen][:, samples],
    )


class Networks(NamedTuple):
  """Shadow models themselves, for attacks that need their gradients.

  Attributes:
    load: model to a predictor, a pytree that JAX can differentiate, as `models.predictor`
      binds it.
    membership: bool[S,N], True where a model was trained with the sample.
  """

  load: Callable[[int], Predict]
  membership: np.ndarray

  def take(self, samples: np.ndarray) -> "Networks":
    """The same models, of some samples."""
    return self._replace(membership=self.membership[:, samples])


def ensemble_of(
  shadow_logits: np.ndarray, membership: np.ndarray, labels: np.ndarray, versions: int = 1
) -> Ensemble:
  """An ensemble whose answers are in an array, which may be mapped.

  Args:
    shadow_logits: f[S,N,Q,K].
    membership: bool[S,N].
    labels: i[N].
    versions: A, as in `View`.
  """
  kept: dict[Statistic, np.ndarray] = {}

  def statistic(function):
    if function not in kept:
      each = (function(np.asarray(logits), labels, versions) for logits in shadow_logits)
      kept[function] = np.stack([np.asarray(values, np.float32) for values in each])
    return kept[function]

  return Ensemble(membership, lambda model: np.asarray(shadow_logits[model]), statistic)
