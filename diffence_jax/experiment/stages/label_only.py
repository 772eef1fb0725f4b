"""The stage of the attacks that ask many times and see labels only."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from diffence_jax import models
from diffence_jax.attacks import Networks, View, run_attack
from diffence_jax.audit.pool import Pool
from diffence_jax.experiment.parts import InParts, Part
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute
from diffence_jax.experiment.stages.classifier import bound_classifier
from diffence_jax.experiment.stages.shadow_models import ShadowModels
from diffence_jax.experiment.stages.target import Target
from diffence_jax.experiment.store import Store
from diffence_jax.named import Choice
from diffence_jax.predictor import runs_on_host


@dataclasses.dataclass(frozen=True)
class LabelOnly(InParts):
  """Attacks on the classifier itself, which hold for all that give the same labels.

  Each attack is a part. Ranges of samples would have each compiled again for every range, and
  HopSkipJump slow, which asks about all samples at once.

  Attributes:
    classifier: the target.
    samples: what is asked about.
    pool: the same samples, and who is a member.
    attacks: those that ask.
    shadow: the shadow models, for those that need their networks; None where none does.
    seed: of the run.
  """

  name: ClassVar[str] = "label_only"

  classifier: Target
  samples: Samples
  pool: Pool
  attacks: tuple[Choice, ...]
  shadow: ShadowModels | None
  seed: int

  @property
  def num_rows(self) -> int:
    """The number of attacks."""
    return len(self.attacks)

  def rows_at_once(self, compute: Compute) -> int:
    """One attack."""
    del compute
    return 1

  def part_writer(self, store: Store, compute: Compute) -> Callable[[Part, Path], None]:
    """What writes `scores.npz` of some of the attacks."""
    view = self._view(store, compute)

    def write(part, folder):
      attacks = self.attacks[part.start : part.stop]
      scores = {choice.name: run_attack(choice, view) for choice in attacks}
      np.savez(folder / "scores.npz", **scores)

    return write

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Joins the parts to `scores.npz`, attack to f64[n]."""
    scores = {}
    for part in self.items(compute):
      with np.load(store.open(part) / "scores.npz", allow_pickle=False) as of_part:
        scores.update(of_part)
    np.savez(folder / "scores.npz", **scores)

  def _view(self, store: Store, compute: Compute) -> View:
    bound = self.classifier.load(store)
    predict, images = models.predictor(*bound), self.samples.images
    ask = lambda images: jnp.argmax(predict(None, images), axis=-1)
    ask.runs_on_host = runs_on_host(predict)
    return View(
      # One query about each image.
      lambda: models.answer_images(*bound, images, compute.batch_size)[:, None],
      self.pool.labels,
      is_known=self.pool.is_known,
      is_member=self.pool.is_member,
      images=images,
      ask=ask,
      networks=self.shadow and self._networks(store),
      ids=self.pool.ids,
      seed=self.seed,
    )

  def _networks(self, store: Store) -> Networks:
    """The shadow models, of the samples that are asked about."""
    shadow = self.shadow
    module = bound_classifier(shadow.recipe, shadow.pool.image_shape).module
    place = {number: at for at, number in enumerate(shadow.pool.ids.tolist())}
    columns = [place[number] for number in self.pool.ids.tolist()]
    return Networks(
      lambda model: models.predictor(module, shadow.models[model].load(store)),
      shadow.membership(store)[:, columns],
    )

  def load(self, store: Store) -> dict[str, np.ndarray]:
    """Attack to scores f64[n] of `samples`, of a stage that is computed."""
    with np.load(store.open(self) / "scores.npz", allow_pickle=False) as scores:
      return dict(scores)

  def cost(self) -> str:
    """How many images are asked about."""
    return f"{len(self.samples)} images"
