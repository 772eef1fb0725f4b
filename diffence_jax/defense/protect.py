"""Diffence as a wrapper: a predictor in, a predictor with the same labels out."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffence_jax import parallel
from diffence_jax.batching import fill_devices, filled, round_up
from diffence_jax.checks import check_choice, check_type
from diffence_jax.compiling import shared
from diffence_jax.defense.candidates import candidate_logits, check_settings
from diffence_jax.defense.early_exit import make_early_selection
from diffence_jax.defense.interval import interval_policy
from diffence_jax.defense.on_host import make_host_candidates
from diffence_jax.defense.pairs import as_key, check_finite, chunk_size_for
from diffence_jax.defense.per_input import per_input
from diffence_jax.defense.policy import Policy, RankPolicy, check_policy
from diffence_jax.defense.policy import answer as answer_by
from diffence_jax.diffusion.schedule import Schedule
from diffence_jax.predictor import (
  Denoise,
  Predict,
  are_finite,
  as_argument,
  ask,
  check_answers,
  check_function,
  check_ids,
  check_images,
  runs_on_host,
)
from diffence_jax.rng import own_key


@dataclasses.dataclass(frozen=True, eq=False)
class ProtectedPredict:
  """A predictor that can also be told the stable ids of its samples.

  Attributes:
    runs_on_host: whether it cannot be traced, as `predictor.runs_on_host` asks.
  """

  _answer: Callable[..., tuple[jax.Array, jax.Array]]
  runs_on_host: bool = False

  def __call__(
    self, key: jax.Array, images: jax.Array, ids: jax.Array | None = None
  ) -> jax.Array:
    """Logits [N,K] for images f[N,H,W,C] in [0, 1]."""
    return self._answer(key, images, ids)[0]

  def with_is_raw(
    self, key: jax.Array, images: jax.Array, ids: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """The same logits, and which of them are the raw prediction's: how often nothing is hidden.

    Returns:
      Logits [N,K], and bool[N], True where they are bit for bit those of `predict`: no
      candidate kept the label, or none was nearer to the interval. Not for clients to see.
    """
    logits, raw = self._answer(key, images, ids)
    return logits, jnp.all(logits == raw, axis=-1)


def protect(
  predict: Predict,
  denoise: Denoise,
  schedule: Schedule,
  *,
  num_candidates: int = 30,
  step: int = 160,
  interval: tuple[float, float] | None = None,
  policy: Policy | None = None,
  chunk_size: int | None = None,
  mesh: Mesh | None = None,
  randomness: str = "per_call",
  constant_time: bool = True,
  **sampler: Any,
) -> ProtectedPredict:
  """Protects a predictor with Diffence.

  The result returns, for every image, the prediction of one of `num_candidates`
  re-generations of it, one that keeps the label `predict` gives to the image itself; or what
  else `policy` makes of the candidates. It is a predictor: it can be protected, wrapped or
  attacked like any other. Batches of any size share
  a few compiled programs, but for the raw prediction: for that `predict` is called as it is,
  with the whole batch, and if it is jitted compiles for every size.

  Args:
    predict: the predictor to protect, `(key, images f32[N,H,W,C] in [0,1]) -> logits [N,K]`.
      Called as it is for the raw prediction, so that no label can be lost to rounding between
      two compilations of it; hence jit it if it is not. What JAX cannot trace goes through
      `models.host_predictor`.
    denoise: `(x_t f32[n,H,W,C] in model units, t i32[n]) -> predicted noise f32[n,H,W,C]`.
    schedule: the noise schedule of `denoise`.
    num_candidates: M, at least 1.
    step: diffusion steps of noise, 1 to `schedule.num_steps - 1`.
    interval: (lo, hi) on phi from `fit_interval` or `member_interval`; None for scenario 3.
    policy: what is answered, given the candidates and the raw prediction: a `RankPolicy` or an
      `AggregatePolicy`; None for the selection with `interval`.
    chunk_size: re-generations that go through the networks at a time, on every device; None
      for as many as `chunks.default_chunk_size` chooses from the memory at hand.
    mesh: as `parallel.batch_mesh` makes it: every batch is split over its devices; None for one
      device.
    randomness: "per_call", for which every call takes a new key; or "per_input": the noise
      follows from the image, rounded to 8 bits, and from one secret key that is passed with
      every call. An image that is sent again gets the same answer, so nothing is gained by
      asking twice. It does not stop who sends many images that are nearly the same.
    constant_time: True draws all candidates of every image. False, for a `RankPolicy` only,
      stops at the first acceptable one, for the same answers (of a predictor that does not use
      its key) from a fraction of the work; it is driven from the host, so it cannot be called
      under `jit`. Not for answers
      to clients whose response time can be told: the time then says how many candidates were
      refused, and a candidate is refused for its label or its phi, which differ between members
      and non-members. That is what selection hides, and a lone query shows it best.
    **sampler: how else candidates are re-generated, as `reconstruct` takes it:
      `num_ddim_steps`, `clip`, `to_clean`, `model_shape`.

  Returns:
    `protected(key, images, ids=None) -> logits [N,K]`. The key draws the noise. `ids` i32[N]
    are the samples' stable ids; None numbers the batch, or is what there is "per_input".
    `protected.with_is_raw(...)` also tells which answers are the raw prediction. It raises
    FloatingPointError where candidates, and ValueError where raw predictions, are not finite.
    Under a caller's `jit`, and so in an exported program, nothing can be raised: there the
    answer to such an image is NaN throughout. Look with `isnan` before an answer goes out.

  Raises:
    TypeError: there is no such setting, or an argument is of another type.
    ValueError: a setting is out of its range, or two do not go together.

  Example:
    A predictor that JAX can trace, and a denoiser that predicts a tenth of what it is given:

    >>> import jax
    >>> import diffence_jax as dj
    >>> predict = jax.jit(lambda key, images: images.reshape(len(images), -1)[:, :3])
    >>> denoise = lambda x, t: 0.1 * x
    >>> protected = dj.protect(predict, denoise, dj.linear_schedule(), num_candidates=4)
    >>> images = jax.random.uniform(jax.random.key(0), (2, 4, 4, 1))
    >>> answers = protected(jax.random.key(1), images)
    >>> bool((answers.argmax(1) == predict(None, images).argmax(1)).all())
    True
  """
  check_function("predict", predict, "key, images")
  check_function("denoise", denoise, "x, t")
  check_choice("randomness", randomness, ("per_call", "per_input"))
  check_type("constant_time", constant_time, bool)
  if not isinstance(mesh, Mesh | None):
    raise TypeError(f"mesh is a {type(mesh).__name__}; expected one of parallel.batch_mesh.")
  if policy is None:
    policy = interval_policy(interval)
  elif interval is not None:
    raise ValueError("interval and policy are both given; expected one of them.")
  if not constant_time and not isinstance(check_policy(policy), RankPolicy):
    raise ValueError(
      "constant_time is False, and the policy looks at all candidates; expected a RankPolicy."
    )
  settings = {"num_candidates": num_candidates, "step": step, **sampler}
  check_settings(schedule, None, chunk_size=chunk_size, **settings)
  on_host = runs_on_host(predict)
  networks = predict if on_host else as_argument(predict), as_argument(denoise), schedule
  make = (_draw_on_host if on_host else _draw_all) if constant_time else _draw_early
  choose = make(networks, check_policy(policy), chunk_size, mesh, settings)

  def answer(key, images, ids):
    raw = ask(predict, key, images)
    finite = are_finite(raw)
    if policy.draws:
      logits, drawn_finite = choose(key, images, ids, raw)
    else:
      logits, drawn_finite = policy.answer(None, raw), True
    # Only now, with all on its way: to look at values is to wait for them.
    check_answers(raw, "predict's answers")
    check_finite(drawn_finite)
    finite &= drawn_finite
    # Where it is traced nothing was raised; never answer as if all were well.
    return jnp.where(finite[:, None], logits, jnp.nan), raw

  def protected(key, images, ids=None):
    images = check_images(images)
    if policy.draws or randomness == "per_input":
      own_key(key)
    if randomness == "per_input":
      return per_input(answer)(key, images, ids)
    return answer(key, images, check_ids(ids, images.shape[0]))

  return ProtectedPredict(protected, runs_on_host=on_host or not constant_time)


# `(key, images f32[N,H,W,C], ids i32[N], raw f[N,K]) -> (logits [N,K], bool[N])`: the answers,
# and whether all candidates that were drawn are finite.
_Choose = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _draw_early(networks, policy, chunk_size, mesh, settings) -> _Choose:
  """Answers of early exit, for the same settings as `_draw_all`."""
  select = make_early_selection(
    *networks, policy=policy, chunk_size=chunk_size, mesh=mesh, **settings
  )

  def choose(*asked):
    selection = select(*asked)
    return selection.logits, selection.finite

  return choose


def _draw_on_host(networks, policy, chunk_size, mesh, settings) -> _Choose:
  """As `_draw_all`, for a predictor that runs on the host."""
  draw = make_host_candidates(*networks, chunk_size=chunk_size, mesh=mesh, **settings)

  def choose(key, images, ids, raw):
    candidates, num = draw(key, images, ids), images.shape[0]
    # A few sizes, as for what draws.
    rows = filled(0, round_up(num, 3), num)
    logits = answer_by(policy, candidates[rows], np.asarray(raw)[rows])
    finite = jnp.asarray(are_finite(candidates).all(axis=1))
    return jnp.asarray(np.asarray(logits)[:num]), finite

  return choose


def _draw_all(networks, policy, chunk_size, mesh, settings) -> _Choose:
  """Answers of a policy that is given all candidates, in batches of a few sizes."""
  sampler = {name: value for name, value in settings.items() if name != "num_candidates"}
  chunk_size_of = chunk_size_for(chunk_size, *networks, **sampler)

  kept = policy, networks
  structure, fixed = jax.tree.structure(kept), as_key(settings)
  placed = kept if mesh is None else parallel.replicate(mesh, kept)
  num_devices = 1 if mesh is None else mesh.size

  def choose_filled(key, *batch):
    num, chunk_size = batch[0].shape[0], chunk_size_of(batch[0].shape[1:])
    choose = _compile_choose(structure, mesh, chunk_size, *fixed)
    if any(isinstance(given, jax.core.Tracer) for given in (key, *batch)):
      return choose((key, None, *placed), batch)
    # Whole chunks of filling are left out, so larger batches need no finer grain.
    share = -(-num // num_devices)
    is_one_chunk = share * settings["num_candidates"] <= chunk_size
    size = round_up(share, 3 if is_one_chunk else 1)
    rows, back = fill_devices(num, num_devices, size)
    is_filled = len(rows) == num
    if not is_filled:
      # In NumPy, as every number of images would be another program.
      batch = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], batch)
    shared = key, jnp.int32(share)
    if mesh is not None:
      shared, batch = parallel.replicate(mesh, shared), parallel.shard_batch(mesh, batch)
    answers = choose((*shared, *placed), batch)
    if is_filled:
      return answers
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[back]), answers)

  return choose_filled


# By the networks too, so that no more than a few that are gone are held by their programs.
@shared(16)
def _compile_choose(structure, mesh, chunk_size, *settings):
  """Compiles the answers of `policy`; for networks and a policy of one structure, once."""
  del structure

  def choose(shared, batch):
    key, num_images, policy, networks = shared
    images, ids, raw = batch
    drawn = {"ids": ids, "chunk_size": chunk_size, "num_images": num_images, **dict(settings)}
    candidates = candidate_logits(key, *networks, images, **drawn)
    return policy.answer(candidates, raw), jnp.all(are_finite(candidates), axis=1)

  return jax.jit(choose if mesh is None else parallel.map_over_batch(choose, mesh))
