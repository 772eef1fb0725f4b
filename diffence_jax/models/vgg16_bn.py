"""VGG-16 with batch normalisation, for small images (Simonyan & Zisserman 2015).

The network, parameter for parameter, that Diffence trains: the convolutions of
weiaicunzai/pytorch-cifar100, and a single linear layer on top, as in kuangliu/pytorch-cifar.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffence_jax.models.layers import conv, norm, normalise

# The features of a stage are at most so many times those of the first.
_MOST_FEATURES = 8


class VGG16BN(nn.Module):
  """13 convolutions in five stages, each of which halves the image; 14.7 M parameters.

  Any size of image will do: sizes are halved rounding up, and what is left after the last
  stage, one position of 32x32 images, is averaged.

  Attributes:
    num_classes: classes K.
    width: features of the first stage; each further stage has twice as many, up to 8 times.
    stages: for each stage, its number of convolutions.
    mean: per-channel mean that is subtracted from the images, or one for all channels.
    std: per-channel standard deviation that they are divided by, as above.
    dtype: computation dtype. Parameters, normalisation and logits are float32.
    norm: "batch" or "group", as in `ResNet`.
  """

  num_classes: int
  width: int = 64
  stages: tuple[int, ...] = (2, 2, 3, 3, 3)
  mean: tuple[float, ...] = (0.5,)
  std: tuple[float, ...] = (0.5,)
  dtype: Any = jnp.float32
  norm: str = "batch"

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
    """Classifies images.

    Args:
      images: f32[N,H,W,C] in [0, 1].
      train: training mode, as in `ResNet`.

    Returns:
      f32[N,K], the logits.

    Raises:
      ValueError: `images` is not a batch of images, `mean` and `std` don't fit it, or there is
        no such `norm`.
    """
    x = normalise(images, self.mean, self.std)
    for stage, num_convs in enumerate(self.stages):
      features = self.width * min(2**stage, _MOST_FEATURES)
      for i in range(num_convs):
        name = f"stage{stage}_conv{i}"
        x = conv(features, 3, use_bias=True, dtype=self.dtype, name=name)(x)
        x = nn.relu(norm(x, self.norm, train, name=f"stage{stage}_norm{i}"))
      x = nn.max_pool(x, (2, 2), (2, 2), padding="SAME")
    features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    return nn.Dense(self.num_classes, name="head")(features)
