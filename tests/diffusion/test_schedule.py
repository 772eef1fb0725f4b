"""The noise schedule against its closed form."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax.diffusion import add_noise


def test_alpha_bar_is_the_product_of_what_each_step_leaves():
  alpha_bar, product = np.asarray(dj.linear_schedule().alpha_bar), 1.0
  for t in range(1000):
    product *= 1.0 - (1e-4 + (0.02 - 1e-4) * t / 999)
    assert alpha_bar[t] == pytest.approx(product, rel=1e-6)


@pytest.mark.parametrize("kind", ["scaled_linear", "sigmoid", "cosine"])
def test_other_schedules_are_the_products_of_their_variances(kind):
  """Step by step, as Diffusers writes them down."""
  num, start, end = 500, 1e-3, 0.015
  share = lambda t: math.cos((t / num + 0.008) / 1.008 * math.pi / 2) ** 2
  beta = {
    "scaled_linear": lambda t: (start**0.5 + (end**0.5 - start**0.5) * t / (num - 1)) ** 2,
    "sigmoid": lambda t: start + (end - start) / (1 + math.exp(6 - 12 * t / (num - 1))),
    "cosine": lambda t: min(1 - share(t + 1) / share(t), 0.999),
  }[kind]
  options = {} if kind == "cosine" else {"beta_start": start, "beta_end": end}
  alpha_bar, product = dj.make_schedule(kind, num_steps=num, **options).alpha_bar, 1.0
  for t in range(num):
    product *= 1.0 - beta(t)
    assert float(alpha_bar[t]) == pytest.approx(product, rel=1e-5)


def test_the_linear_schedule_is_the_same_by_name_and_by_its_variances():
  expected = np.asarray(dj.linear_schedule().alpha_bar)
  betas = np.linspace(1e-4, 0.02, 1000).tolist()
  for schedule in (dj.make_schedule(), dj.make_schedule("betas", betas=betas)):
    np.testing.assert_array_equal(schedule.alpha_bar, expected)
    np.testing.assert_array_equal(schedule.timesteps, np.arange(1000))


@pytest.mark.parametrize(
  "options, message",
  [
    ({"kind": "cosin"}, "did you mean 'cosine'"),
    ({"kind": "cosine", "beta_start": 0.1}, "option of a cosine schedule called 'beta_start'"),
    ({"kind": "betas", "betas": [0.1, 1.0]}, r"outside of \(0, 1\)"),
    ({"kind": "betas", "betas": [0.1, float("nan")]}, r"outside of \(0, 1\)"),
    ({"kind": "betas", "betas": [[0.1, 0.2]]}, "one number a step"),
    ({"num_steps": 10**12}, "2 to 1000000"),
    ({"num_steps": 20_000}, "nothing is left of the signal"),
  ],
)
def test_what_is_no_schedule_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    dj.make_schedule(**options)


def test_noise_keeps_the_variance_of_unit_variance_images():
  schedule = dj.linear_schedule()
  clean, noise = np.random.default_rng(0).standard_normal((2, 4, 50, 50, 1), np.float32)
  for t in (0, 300, 999):
    noised = add_noise(schedule, jnp.asarray(clean), jnp.asarray(noise), jnp.full((4,), t))
    assert float(jnp.var(noised)) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
  "settings", [{"num_steps": 1}, {"beta_start": 0.0}, {"beta_start": 0.1}, {"beta_end": 1.0}]
)
def test_settings_out_of_range_are_refused(settings):
  with pytest.raises(ValueError, match=r"expected|at least"):
    dj.linear_schedule(**settings)


@pytest.mark.parametrize(
  "respacing, kept",
  [
    ("ddim5", [0, 200, 400, 600, 800]),
    ("ddim1000", range(1000)),
    ("4", [0, 333, 666, 999]),
    ("1", [0]),
  ],
)
def test_respacing_keeps_the_steps_that_guided_diffusion_keeps(respacing, kept):
  schedule = dj.linear_schedule()
  own = dj.respaced(schedule, respacing)
  np.testing.assert_array_equal(own.timesteps, list(kept))
  np.testing.assert_array_equal(own.alpha_bar, schedule.alpha_bar[np.array(list(kept))])
  assert own.num_steps == len(list(kept))


@pytest.mark.parametrize("respacing", ["", "ddim", "ddim0", "0", "5,5", "ddim1001", "1001"])
def test_a_respacing_of_no_known_form_is_refused(respacing):
  with pytest.raises(ValueError, match="expected 'ddimK' or 'K'"):
    dj.respaced(dj.linear_schedule(), respacing)


def test_a_respacing_that_no_distance_gives_is_refused():
  with pytest.raises(ValueError, match="no whole distance leaves 600 of 1000"):
    dj.respaced(dj.linear_schedule(), "ddim600")


@pytest.mark.parametrize("betas", [[[0.1], [0.1, 0.2]], "0.1", [0.1j], None])
def test_betas_that_are_no_numbers_are_named(betas):
  with pytest.raises(ValueError, match="betas are"):
    dj.make_schedule("betas", betas=betas)


@pytest.mark.parametrize(
  "alpha_bar, timesteps, message",
  [
    ([0.1, 0.5, 0.9], [0, 1, 2], "alpha_bar that is not falling"),
    ([0.9, math.nan, 0.1], [0, 1, 2], "alpha_bar that is not falling"),
    ([1.5, 0.5, 0.1], [0, 1, 2], r"alpha_bar .* in \(0, 1\]"),
    ([0.9, 0.5, 0.1], [2, 1, 0], "timesteps that are no whole numbers from 0 on, rising"),
    ([0.9, 0.5, 0.1], [0.0, 0.5, 1.0], "timesteps that are no whole numbers"),
    ([0.9, 0.5, 0.1], [-1, 0, 1], "timesteps that are no whole numbers"),
  ],
)
def test_a_schedule_made_by_hand_falls_over_rising_steps(alpha_bar, timesteps, message):
  own = dj.Schedule(jnp.array(alpha_bar), jnp.array(timesteps))
  with pytest.raises(ValueError, match=message):
    dj.respaced(own, "2")
