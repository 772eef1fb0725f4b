"""The stage that optimises queries against shadow models, and records what is answered."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from jax.tree_util import Partial

from diffence_jax import models, rng
from diffence_jax.attacks.optimised_queries import TOGETHER, OptimisedSettings, optimise_queries
from diffence_jax.audit.membership import ensemble_logits
from diffence_jax.audit.predictors import ModelRecord
from diffence_jax.audit.record import RECORDED, make_recorder, rows_axis
from diffence_jax.audit.record_files import join_records, read_model
from diffence_jax.batching import even_size
from diffence_jax.diffusion import reconstruct
from diffence_jax.experiment.parts import InParts, Part
from diffence_jax.experiment.stage import Compute
from diffence_jax.experiment.stages.queries import Asked, Recording
from diffence_jax.experiment.stages.shadow_models import ShadowModels
from diffence_jax.experiment.stages.target import Target
from diffence_jax.experiment.store import Store
from diffence_jax.predictor import Bound
from diffence_jax.training.feed import default_models_at_once

# How the queries of a sample are optimised: for the bare models, and through a re-generation.
# Each has a progress bar, by this description: the latter takes many times as long.
_KINDS = {"optimised": "optimised queries", "through": "queries through re-generations"}


@dataclasses.dataclass(frozen=True)
class OptimisedQueries(Recording, InParts):
  """Two queries for each of some samples, and what the target and shadow models answer.

  A row is a sample: those that are optimised together share their noise, and are in one part.

  Attributes:
    classifier: the target.
    shadow: the shadow models; the first ones are those that queries are optimised for, the
      others those that answer.
    rows: the samples' places among those that shadow models are trained on.
    settings: how queries are optimised.
  """

  name: ClassVar[str] = "optimised"

  classifier: Target
  shadow: ShadowModels
  rows: tuple[int, ...]
  settings: OptimisedSettings

  @property
  def num_rows(self) -> int:
    """n, samples."""
    return len(self.samples)

  def rows_at_once(self, compute: Compute) -> int:
    """Those that are optimised together, whatever the size of other batches."""
    del compute
    return TOGETHER

  def part_writer(self, store: Store, compute: Compute) -> Callable[[Part, Path], None]:
    """What writes the queries of some samples, and of either kind the records of them."""
    num, num_few = self.num_rows, self.settings.num_models
    module, variables = self.shadow.load_stacked(store)
    few, others = (
      jax.tree.map(lambda leaf, part=part: leaf[part], variables)
      for part in (slice(num_few), slice(num_few, None))
    )
    optimise = self._optimiser(store, Bound(module, few))
    at_once = compute.models_at_once or default_models_at_once(jax.default_backend())
    shadow = Bound(ensemble_logits(module, at_once), others)
    asked = {"target": self.classifier.load(store), "shadow": shadow}
    # Rows are first those of one kind, then those of the other; only a part's are filled in.
    queries = np.empty((2 * num, *self.samples.image_shape), np.uint8)
    batch_size = min(compute.batch_size, even_size(num, TOGETHER))
    recorders = {}
    for number, (name, num_models) in enumerate(self._answering.items()):
      # The target's re-generations are of ids of their own: no attacker has the noise it draws.
      ids = np.arange(len(queries)) + number * len(queries)
      told = Asked(asked[name], queries.__getitem__, ids, num_models)
      args, options = self.recorded(store, compute, told, batch_size)
      recorders[name] = make_recorder(*args, **options)

    def write(part, folder):
      made = optimise(part.start, part.stop)
      np.save(folder / "queries.npy", made)
      for kind, of_kind in enumerate(made):
        start, stop = kind * num + part.start, kind * num + part.stop
        queries[start:stop] = of_kind
        for name, record in recorders.items():
          directory = _record_of(folder, name, kind)
          directory.mkdir(exist_ok=True)
          for _ in record(directory, start, stop):
            pass

    return write

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Joins the parts to `queries.npy` u8[2n,H,W,C], and records in `target/` and `shadow/`."""
    parts = [store.open(part) for part in self.items(compute)]
    made = [np.load(part / "queries.npy", allow_pickle=False) for part in parts]
    queries = np.concatenate(made, axis=1)
    np.save(folder / "queries.npy", queries.reshape(-1, *queries.shape[2:]))
    for name, num_models in self._answering.items():
      (folder / name).mkdir(exist_ok=True)
      records = [_record_of(part, name, kind) for kind in range(len(_KINDS)) for part in parts]
      axis = rows_axis(num_models)
      join_records(folder / name, records, RECORDED, 2 * self.num_rows, axis=axis)

  def load_queries(self, store: Store) -> np.ndarray:
    """The queries u8[2,n,H,W,C] of a finished stage: for the bare models, then the others."""
    queries = np.load(store.open(self) / "queries.npy", allow_pickle=False)
    return queries.reshape(2, -1, *queries.shape[1:])

  def load_answers(self, store: Store, kind: int, model: int | None = None) -> ModelRecord:
    """What is answered to one kind of query, of a finished stage.

    Args:
      store: where it is.
      kind: 0 for those optimised for the bare models, 1 through a re-generation.
      model: of those that answer, from 0 on; None for the target.

    Returns:
      raw f32[n,1,K] and candidates f32[n,1,R,K].
    """
    folder = store.open(self) / ("target" if model is None else "shadow")
    num = len(self.samples)
    part = slice(kind * num, (kind + 1) * num)
    arrays = [read_model(folder / name, model) for name in ("raw.npy", "candidates.npy")]
    return ModelRecord(*(array[part, None] for array in arrays))

  def cost(self) -> str:
    """How many gradients through both networks, and evaluations after that."""
    own = self.settings
    num = len(self.samples) * own.num_steps
    return (
      f"{2 * len(self.samples)} queries: {num * own.num_draws} gradients of the diffusion "
      f"model and {num * (1 + own.num_draws) * own.num_models} of shadow models, then "
      f"{self.num_evaluations(2)} evaluations of the diffusion model"
    )

  @property
  def _answering(self) -> dict[str, int | None]:
    """Who answers, a record each: how many models, None for a classifier alone."""
    return {"target": None, "shadow": len(self.shadow.models) - self.settings.num_models}

  def _optimiser(self, store: Store, few: Bound) -> Callable[[int, int], np.ndarray]:
    """What makes the queries u8[2,stop-start,H,W,C] of the samples from `start` to `stop`."""
    membership = self.shadow.membership(store)[: self.settings.num_models, list(self.rows)]
    denoiser = self.purification.network(self.diffusion.load(store))
    plain = Partial(_asking(few.module, self.settings.num_models), few.variables)
    through = Partial(
      _regenerating(denoiser.module, **self.purification.sampler),
      plain,
      denoiser.variables,
      self.purification.sampler_schedule(),
    )
    images = np.asarray(self.samples.images)

    def optimise(start, stop):
      made = []
      for (kind, description), answer, num_draws in zip(
        _KINDS.items(), (plain, through), (1, self.settings.num_draws), strict=True
      ):
        key = rng.stream(self.seed, f"{self.name}/{kind}")
        queries = optimise_queries(
          key, answer, images, self.samples.labels, membership,
          num_steps=self.settings.num_steps, num_draws=num_draws, radius=self.settings.radius,
          start=start, stop=stop, description=description,
        )  # fmt: skip
        made.append(queries)
      return np.stack(made)

    return optimise


def _record_of(folder: Path, name: str, kind: int) -> Path:
  """Where in a part the target's or the shadow models' answers to one kind of query are."""
  return folder / f"{name}{kind}"


def _asking(module: Any, num_models: int) -> Callable[..., jax.Array]:
  """All models' answers f[n,S,K], whatever the key."""
  answer = ensemble_logits(module, num_models)

  def ask(variables, key, images):
    del key
    return answer(variables, images).reshape(len(images), num_models, -1)

  return ask


def _regenerating(module: Any, **sampler: Any) -> Callable[..., jax.Array]:
  """What is answered to a re-generation of each image, its noise drawn from the key."""

  def ask(answer, variables, schedule, key, images):
    denoise = models.denoiser(module, variables)
    return answer(None, reconstruct(key, denoise, schedule, images, **sampler))

  return ask
