"""The stage that makes images to look at: drawn from noise, and re-generations of samples."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax import models, rng
from diffence_jax.batching import to_bytes, to_float
from diffence_jax.diffusion import fit_images, reconstruct, sample
from diffence_jax.experiment.purification import Purification
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.stages.diffusion import SavedDiffusion, TrainedDiffusion
from diffence_jax.experiment.store import Store


@dataclasses.dataclass(frozen=True)
class SampleImages(Stage):
  """Draws images from noise, and re-generates target samples of both sides.

  Attributes:
    diffusion: the diffusion model.
    purification: how images are re-generated.
    shown: samples to re-generate, targets of both sides.
    num_images: how many are drawn from noise.
    num_reconstructions: of every sample.
    num_ddim_steps: of drawing.
    seed: of the run.
  """

  name: ClassVar[str] = "samples"

  diffusion: TrainedDiffusion | SavedDiffusion
  purification: Purification
  shown: Samples
  num_images: int
  num_reconstructions: int
  num_ddim_steps: int
  seed: int

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `images.npz`: what was drawn, samples as they are, and their re-generations."""
    del compute
    bound = self.purification.network(self.diffusion.load(store))
    schedule, sampler = self.purification.sampler_schedule(), self.purification.sampler
    raw = np.asarray(self.shown.images)
    shape = self.num_images, *(self.purification.model_shape or raw.shape[1:])

    # A class-conditional network draws all classes in turn, and re-generates under true labels.
    drawn_labels = np.arange(self.num_images, dtype=np.int32) % self.shown.num_classes

    @jax.jit
    def draw(variables, key):
      denoise = _denoiser(bound.module, variables, drawn_labels)
      full = self.purification.full_schedule()
      return sample(key, denoise, full, shape, num_ddim_steps=self.num_ddim_steps)

    @jax.jit
    def regenerate(variables, images, key):
      denoise = _denoiser(bound.module, variables, self.shown.labels)
      return reconstruct(key, denoise, schedule, images, **sampler)

    images = to_float(raw)
    keys = [rng.stream(self.seed, f"samples/{i}") for i in range(self.num_reconstructions)]
    reconstructed = [regenerate(bound.variables, images, key) for key in keys]
    drawn = draw(bound.variables, rng.stream(self.seed, "samples"))
    np.savez(
      folder / "images.npz",
      **{
        "images/raw": raw,
        "images/reconstructed": np.stack([to_bytes(r) for r in reconstructed], axis=1),
        "images/samples": to_bytes(fit_images(drawn, raw.shape[1:])),
      },
    )

  def load(self, store: Store) -> dict[str, np.ndarray]:
    """The images, u8: "images/raw" [G,H,W,C], "images/reconstructed" and "images/samples"."""
    with np.load(store.open(self) / "images.npz", allow_pickle=False) as arrays:
      return dict(arrays)

  def cost(self) -> str:
    """How many images and evaluations of the diffusion model."""
    return f"{self.num_images} images, {self.num_images * self.num_ddim_steps} evaluations"


def _denoiser(module, variables, labels):
  denoise = models.denoiser(module, variables)
  if not models.is_conditional(module):
    return denoise
  return lambda x, t: denoise(x, t, jnp.asarray(labels, jnp.int32))
