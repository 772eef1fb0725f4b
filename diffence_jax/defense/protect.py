"""Diffence as a wrapper: a predictor in, a predictor with the same labels out."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffence_jax import parallel
from diffence_jax.defense.candidates import (
  candidate_logits,
  check_ids,
  check_settings,
  chunk_size_for,
)
from diffence_jax.defense.checks import check_images
from diffence_jax.defense.early_exit import make_early_selection
from diffence_jax.defense.select import check_interval, select
from diffence_jax.diffusion.schedule import Schedule
from diffence_jax.predictor import Denoise, Predict, as_argument

# Above rng.MAX_ID and not what `candidate_logits` uses: a stream of its own.
_HASH = 2**32 - 2


class ProtectedPredict(Protocol):
  """A predictor that can also be told the stable ids of its samples."""

  def __call__(
    self, key: jax.Array, images: jax.Array, ids: jax.Array | None = None
  ) -> jax.Array:
    """Logits [N,K] for images f[N,H,W,C] in [0, 1]."""


def protect(
  predict: Predict,
  denoise: Denoise,
  schedule: Schedule,
  *,
  num_candidates: int = 30,
  step: int = 160,
  interval: tuple[float, float] | None = None,
  chunk_size: int | None = None,
  mesh: Mesh | None = None,
  randomness: str = "per_call",
  constant_time: bool = True,
  **sampler: Any,
) -> ProtectedPredict:
  """Protects a predictor with Diffence.

  The result returns, for every image, the prediction of one of `num_candidates`
  re-generations of it, one that keeps the label `predict` gives to the image itself. It is a
  predictor: it can be protected, wrapped or attacked like any other. Batches of any size share
  a few compiled programs, but for the raw prediction: for that `predict` is called as it is,
  with the whole batch, and if it is jitted compiles for every size.

  Args:
    predict: the predictor to protect, `(key, images f32[N,H,W,C] in [0,1]) -> logits [N,K]`.
      Called as it is for the raw prediction, so that no label can be lost to rounding between
      two compilations of it; hence jit it if it is not.
    denoise: `(x_t f32[n,H,W,C] in model units, t i32[n]) -> predicted noise f32[n,H,W,C]`.
    schedule: the noise schedule of `denoise`.
    num_candidates: M, at least 1.
    step: diffusion steps of noise, 1 to `schedule.num_steps - 1`.
    interval: (lo, hi) on phi from `fit_interval` or `member_interval`; None for scenario 3.
    chunk_size: re-generations that go through the networks at a time, on every device; None
      for as many as `chunks.default_chunk_size` chooses from the memory at hand.
    mesh: as `parallel.batch_mesh` makes it: every batch is split over its devices; None for one
      device.
    randomness: "per_call", for which every call takes a new key; or "per_input": the noise
      follows from the image, rounded to 8 bits, and from one secret key that is passed with
      every call. An image that is sent again gets the same answer, so nothing is gained by
      asking twice. It does not stop who sends many images that are nearly the same.
    constant_time: True draws all candidates of every image. False stops at the first acceptable
      one, for the same answers (of a predictor that does not use its key) from a fraction of
      the work; it is driven from the host, so it cannot be called under `jit`. Not for answers
      to clients whose response time can be told: the time then says how many candidates were
      refused, and a candidate is refused for its label or its phi, which differ between members
      and non-members. That is what selection hides, and a lone query shows it best.
    **sampler: how else candidates are re-generated, as `reconstruct` takes it:
      `num_ddim_steps`, `clip`, `to_clean`, `model_shape`.

  Returns:
    `protected(key, images, ids=None) -> logits [N,K]`. The key draws the noise. `ids` i32[N]
    are the samples' stable ids; None numbers the batch, or is what there is "per_input".

  Raises:
    TypeError: there is no such setting.
    ValueError: a setting is out of its range.
  """
  if randomness not in ("per_call", "per_input"):
    raise ValueError(f"randomness is {randomness!r}; expected 'per_call' or 'per_input'.")
  sampler = {"step": step, **sampler}
  check_settings(schedule, None, num_candidates, chunk_size, **sampler)
  if interval is not None:
    interval = check_interval(interval)
  networks = as_argument(predict), as_argument(denoise), schedule
  settings = {"num_candidates": num_candidates, **sampler}
  chunk_size_of = chunk_size_for(chunk_size, *networks, **sampler)

  def choose(shared, batch):
    key, num_images, networks = shared
    images, ids, raw = batch
    candidates = candidate_logits(
      key,
      *networks,
      images,
      ids=ids,
      chunk_size=chunk_size_of(images.shape[1:]),
      num_images=num_images,
      **settings,
    )
    return select(candidates, raw, interval).logits

  choose = jax.jit(choose if mesh is None else parallel.map_over_batch(choose, mesh))
  placed = networks if mesh is None else parallel.replicate(mesh, networks)
  num_devices = 1 if mesh is None else mesh.size
  choose_early = make_early_selection(
    *networks, interval=interval, chunk_size=chunk_size, mesh=mesh, **settings
  )

  def protected(key, images, ids=None):
    images = check_images(images)
    if randomness == "per_input":
      if ids is not None:
        raise ValueError("ids were given, and randomness is 'per_input'; expected ids=None.")
      ids = _image_ids(key, images)
    ids = check_ids(ids, images.shape[0])
    batch = images, ids, predict(key, images)
    if not constant_time:
      return choose_early(key, *batch).logits
    if any(isinstance(given, jax.core.Tracer) for given in (key, *batch)):
      return choose((key, None, placed), batch)
    # Whole chunks of filling are left out, so larger batches need no finer grain.
    own = -(-images.shape[0] // num_devices)
    is_one_chunk = own * num_candidates <= chunk_size_of(images.shape[1:])
    size = _round_up(own, 3 if is_one_chunk else 1)
    rows, back = _filling(images.shape[0], num_devices, size)
    is_filled = len(rows) == images.shape[0]
    if not is_filled:
      # In NumPy, as every number of images would be another program.
      batch = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], batch)
    shared = key, jnp.int32(own)
    if mesh is not None:
      shared, batch = parallel.replicate(mesh, shared), parallel.shard_batch(mesh, batch)
    logits = choose((*shared, placed), batch)
    return logits if is_filled else jnp.asarray(np.asarray(logits)[back])

  return protected


def _round_up(num: int, bits: int) -> int:
  """The least number, at least `num`, of which but the first `bits` binary digits are 0."""
  grain = 1 << max(0, num.bit_length() - bits)
  return -(-num // grain) * grain


def _filling(num: int, num_devices: int, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Which rows of `num` fill a batch of `size` on every device, and where each one is then.

  Every device has equally many first, the last ones repetitions of the last row.
  """
  own = -(-num // num_devices)
  each = np.minimum(np.arange(size), own - 1)
  rows = np.arange(num_devices)[:, None] * own + each[None]
  at = np.arange(num)
  return np.minimum(rows.ravel(), num - 1), at // own * size + at % own


@jax.jit
def _image_ids(key, images):
  """A hash of every image, i32[N], that cannot be foretold without the key.

  Multilinear hashing (Carter & Wegman 1979) of the 8-bit values by random multipliers: two
  images collide with a chance of about 2**-31, and then merely share their noise.
  """
  pixels = jnp.round(images * 255.0).astype(jnp.uint32).reshape(images.shape[0], -1)
  multipliers = jax.random.bits(jax.random.fold_in(key, _HASH), pixels.shape[1:], jnp.uint32)
  # Sums are modulo 2**32; the lowest bit, the least random one, is dropped.
  sums = jnp.sum(pixels * multipliers[None], axis=1, dtype=jnp.uint32)
  return (sums >> 1).astype(jnp.int32)
