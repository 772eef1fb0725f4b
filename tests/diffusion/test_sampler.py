"""The sampler against the published code's outputs, and against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.load import load_fixture, pseudo_state_dict

import diffence_jax as dj
from diffence_jax.diffusion import add_noise, ddim, ddim_timesteps, ddpm_loss, fit_images

SCHEDULE = dj.linear_schedule()


@pytest.fixture(scope="module")
def published():
  manifest, arrays = load_fixture("ddpm_unet")
  module, variables = dj.interop.from_torch("ddpm_unet", pseudo_state_dict(manifest))
  arrays = {k: v.transpose(0, 2, 3, 1) if v.ndim == 4 else v for k, v in arrays.items()}
  return jax.jit(dj.models.denoiser(module, variables)), arrays


@pytest.mark.parametrize("step, stride", [(160, 160), (50, 50), (160, 40)])
def test_reconstruct_matches_the_published_code(published, step, stride):
  denoise, arrays = published
  purified = dj.reconstruct(
    None,
    denoise,
    SCHEDULE,
    jnp.asarray(arrays["image"]),
    step=step,
    num_ddim_steps=step // stride,
    noise=jnp.asarray(arrays["noise"]),
  )
  np.testing.assert_allclose(purified, arrays[f"purified_T{step}_k{stride}"], atol=1e-4)


@pytest.mark.parametrize("step, stride", [(160, 160), (50, 50), (160, 40)])
def test_ddim_matches_the_published_code_before_clipping(published, step, stride):
  denoise, arrays = published
  clean = 2.0 * jnp.asarray(arrays["image"]) - 1.0
  t = jnp.full((len(clean),), step - 1)
  noised = add_noise(SCHEDULE, clean, jnp.asarray(arrays["noise"]), t)
  x = ddim(denoise, SCHEDULE, noised, ddim_timesteps(step, step // stride))
  np.testing.assert_allclose(x, arrays[f"unclipped_T{step}_k{stride}"], atol=1e-4)


def test_reconstruct_matches_guided_diffusion():
  """Noised at the second of five respaced steps, two steps back, the clean image clipped."""
  manifest, arrays = load_fixture("adm_unet")
  module, variables = dj.interop.from_torch(
    "adm_unet", pseudo_state_dict(manifest), num_head_channels=16
  )
  schedule = dj.respaced(SCHEDULE, manifest["purify"]["respacing"])
  np.testing.assert_array_equal(schedule.timesteps, arrays["timesteps"])
  x, noise, noised, purified = (
    jnp.asarray(arrays[name].transpose(0, 2, 3, 1))
    for name in ("x", "noise", "noised", "purified")
  )
  num_steps = manifest["purify"]["num_steps"]
  own = add_noise(schedule, x, noise, jnp.full((len(x),), num_steps - 1))
  np.testing.assert_allclose(own, noised, atol=1e-5)
  regenerated = dj.reconstruct(
    None,
    jax.jit(dj.models.denoiser(module, variables)),
    schedule,
    0.5 * (x + 1.0),
    step=num_steps,
    num_ddim_steps=num_steps,
    noise=noise,
    clip=True,
    to_clean=True,
  )
  np.testing.assert_allclose(2.0 * regenerated - 1.0, purified, atol=1e-3)


@pytest.mark.parametrize("num_ddim_steps", [1, 3, 20])
def test_the_network_is_evaluated_once_a_step(num_ddim_steps):
  visited = []

  def denoise(x, t):
    jax.debug.callback(lambda t: visited.append(int(t[0])), t, ordered=True)
    return jnp.zeros_like(x)

  images = jnp.full((2, 4, 4, 1), 0.5)
  dj.reconstruct(
    jax.random.key(0), denoise, SCHEDULE, images, step=160, num_ddim_steps=num_ddim_steps
  ).block_until_ready()
  jax.effects_barrier()
  expected = [round(160 - i * 160 / num_ddim_steps) for i in range(num_ddim_steps)]
  assert visited == expected


@pytest.mark.parametrize("num_ddim_steps", [1, 4])
def test_a_perfect_denoiser_gives_the_image_back(num_ddim_steps):
  images = jax.random.uniform(jax.random.key(1), (3, 5, 5, 1))
  clean = 2.0 * images - 1.0

  def denoise(x, t):
    alpha_bar = SCHEDULE.alpha_bar[t][:, None, None, None]
    return (x - jnp.sqrt(alpha_bar) * clean) / jnp.sqrt(1.0 - alpha_bar)

  regenerated = dj.reconstruct(
    jax.random.key(0), denoise, SCHEDULE, images, num_ddim_steps=num_ddim_steps
  )
  # What is left is the noise of index 0, of standard deviation 0.01 in model units.
  np.testing.assert_allclose(regenerated, images, atol=0.03)


def test_the_way_to_the_clean_image_leaves_no_noise_and_visits_indices_one_lower():
  schedule = dj.respaced(SCHEDULE, "ddim5")
  images = jax.random.uniform(jax.random.key(1), (3, 5, 5, 1))
  told = []

  def denoise(x, t):
    jax.debug.callback(lambda t: told.append(int(t[0])), t, ordered=True)
    alpha_bar = SCHEDULE.alpha_bar[t][:, None, None, None]
    return (x - jnp.sqrt(alpha_bar) * (2.0 * images - 1.0)) / jnp.sqrt(1.0 - alpha_bar)

  regenerated = dj.reconstruct(
    jax.random.key(0), denoise, schedule, images, step=2, num_ddim_steps=2, to_clean=True
  )
  np.testing.assert_allclose(regenerated, images, atol=1e-4)
  jax.effects_barrier()
  assert told == [200, 0]


def test_a_learned_variance_is_left_unread():
  images = jax.random.uniform(jax.random.key(1), (2, 5, 5, 3))
  noise_only = lambda x, t: 0.3 * x
  both = lambda x, t: jnp.concatenate([0.3 * x, jnp.full_like(x, jnp.nan)], axis=-1)
  for function in (
    lambda denoise: dj.reconstruct(jax.random.key(0), denoise, SCHEDULE, images),
    lambda denoise: ddpm_loss(jax.random.key(0), denoise, SCHEDULE, images),
  ):
    np.testing.assert_array_equal(function(both), function(noise_only))
  with pytest.raises(ValueError, match="expected the same shape, or twice the channels"):
    dj.reconstruct(jax.random.key(0), lambda x, t: x[..., :1], SCHEDULE, images)


def test_a_network_of_another_size_sees_images_of_its_own():
  seen = []

  def denoise(x, t):
    seen.append(x.shape)
    return jnp.zeros_like(x)

  images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
  settings = {"step": 1, "model_shape": (16, 16, 3)}
  regenerated = dj.reconstruct(jax.random.key(0), denoise, SCHEDULE, images, **settings)
  assert seen == [(2, 16, 16, 3)]
  # One step is next to no noise: what comes back is the image scaled up and down.
  expected = fit_images(fit_images(images, (16, 16, 3)), (8, 8, 1))
  np.testing.assert_allclose(regenerated, expected, atol=0.02)


@pytest.mark.parametrize(
  "settings, message",
  [
    ({"model_shape": (8, 8, 1)}, "cannot re-generate colours"),
    ({"model_shape": (8, 8)}, "expected height, width and channels"),
    ({"noise": jnp.zeros((1, 4, 4, 1))}, "noise has shape"),
  ],
)
def test_shapes_that_do_not_fit_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    dj.reconstruct(
      jax.random.key(0), lambda x, t: x, SCHEDULE, jnp.zeros((1, 4, 4, 3)), **settings
    )


def test_sampling_recovers_a_gaussian():
  """For data N(mu, s^2) the best denoiser is known, so DDIM must return that distribution."""
  mean, deviation = 0.3, 0.2

  def denoise(x, t):
    alpha_bar = SCHEDULE.alpha_bar[t][:, None, None, None]
    variance = alpha_bar * deviation**2 + 1.0 - alpha_bar
    return jnp.sqrt(1.0 - alpha_bar) * (x - jnp.sqrt(alpha_bar) * mean) / variance

  drawn = dj.sample(jax.random.key(0), denoise, SCHEDULE, (500, 4, 4, 1), num_ddim_steps=200)
  pixels = 2.0 * drawn - 1.0
  assert float(jnp.mean(pixels)) == pytest.approx(mean, abs=0.01)
  assert float(jnp.std(pixels)) == pytest.approx(deviation, rel=0.05)


def test_clipping_keeps_a_network_that_errs_within_bounds():
  images = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
  timesteps = ddim_timesteps(999, 50)
  errs = lambda x, t: 0.5 * x
  wild = ddim(errs, SCHEDULE, images, timesteps)
  kept = ddim(errs, SCHEDULE, images, timesteps, clip=True)
  # The noise of index 0 comes on top of a clean image in [-1, 1].
  assert float(jnp.abs(wild).max()) > 2.0 > 1.05 > float(jnp.abs(kept).max())


def test_the_loss_of_a_network_that_says_nothing_is_one():
  images = jnp.zeros((64, 32, 32, 1))
  value = ddpm_loss(jax.random.key(0), lambda x, t: jnp.zeros_like(x), SCHEDULE, images)
  assert float(value) == pytest.approx(1.0, abs=0.03)  # five standard errors


@pytest.mark.parametrize("settings", [{"step": 0}, {"step": 1000}, {"num_ddim_steps": 0}])
def test_steps_out_of_range_are_refused(settings):
  images = jnp.zeros((1, 4, 4, 1))
  with pytest.raises(ValueError, match="expected 1 to"):
    dj.reconstruct(jax.random.key(0), lambda x, t: x, SCHEDULE, images, **settings)


def test_noise_must_come_from_somewhere():
  with pytest.raises(ValueError, match="neither a key nor noise"):
    dj.reconstruct(None, lambda x, t: x, SCHEDULE, jnp.zeros((1, 4, 4, 1)))


def test_what_would_give_no_image_is_refused():
  key, images, same = jax.random.key(0), jnp.zeros((1, 4, 4, 1)), lambda x, t: x
  with pytest.raises(ValueError, match="noise has NaN"):
    dj.reconstruct(None, same, SCHEDULE, images, noise=jnp.nan * images)
  with pytest.raises(ValueError, match=r"shape.0. is -1; expected a whole number, at least 1"):
    dj.sample(key, same, SCHEDULE, (-1, 4, 4, 1), num_ddim_steps=2)
  with pytest.raises(TypeError, match=r"denoise's answers are int32\[1, 4, 4, 1\]"):
    dj.reconstruct(key, lambda x, t: x.astype(jnp.int32), SCHEDULE, images)
