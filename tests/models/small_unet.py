"""The smallest U-Net that is one, for tests of what is done with it."""

import flax.linen as nn

from diffence_jax.models import make_denoiser


def small_unet() -> nn.Module:
  """For gray images: one level of one block, without attention."""
  return make_denoiser(
    "ddpm_unet",
    out_channels=1,
    channels=8,
    multipliers=(1,),
    attention_levels=(),
    num_res_blocks=1,
  )
