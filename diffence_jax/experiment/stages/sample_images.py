"""The stage that makes images to look at: drawn from noise, and re-generations of samples."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np

from diffence_jax import models, rng
from diffence_jax.batching import to_bytes, to_float
from diffence_jax.compiling import shared
from diffence_jax.defense.pairs import as_key
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
    labels = np.asarray(self.shown.labels, np.int32)
    draw = _compile_draw(bound.module, shape, self.num_ddim_steps)
    regenerate = _compile_regeneration(bound.module, *as_key(sampler))

    images = to_float(raw)
    keys = [rng.stream(self.seed, f"samples/{i}") for i in range(self.num_reconstructions)]
    reconstructed = [regenerate(key, bound.variables, labels, schedule, images) for key in keys]
    full, key = self.purification.full_schedule(), rng.stream(self.seed, "samples")
    drawn = draw(key, bound.variables, drawn_labels, full)
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


@shared(4)
def _compile_draw(module, shape, num_ddim_steps):
  def draw(key, variables, labels, schedule):
    denoise = _denoiser(module, variables, labels)
    return sample(key, denoise, schedule, shape, num_ddim_steps=num_ddim_steps)

  return jax.jit(draw)


@shared(4)
def _compile_regeneration(module, *sampler):
  def regenerate(key, variables, labels, schedule, images):
    denoise = _denoiser(module, variables, labels)
    return reconstruct(key, denoise, schedule, images, **dict(sampler))

  return jax.jit(regenerate)


def _denoiser(module, variables, labels):
  denoise = models.denoiser(module, variables)
  if not models.is_conditional(module):
    return denoise
  return lambda x, t: denoise(x, t, labels)
