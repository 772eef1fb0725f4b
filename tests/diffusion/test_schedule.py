"""The noise schedule against its closed form."""

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
