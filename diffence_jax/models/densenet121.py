"""DenseNet-121, for small images or large ones (Huang et al. 2017).

With the small stem it is the network, parameter for parameter, of weiaicunzai/pytorch-cifar100,
which Diffence trains; see `diffence_jax.interop`. There, unlike the publication, nothing
follows the normalisation between two dense blocks but the convolution: no ReLU. With the large
one it is the published network, as torchvision has it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffence_jax.models.layers import conv, norm, normalise, published_stem


class DenseNet121(nn.Module):
  """Dense blocks, with half the features and half the image between two; 7.0 M parameters.

  Any size of image will do. With the small stem odd sizes are halved rounding up, where a mean
  is over what is left of the image; with the large one, for images of 29x29 at least, rounding
  down.

  Attributes:
    num_classes: classes K.
    width: features of the stem, even; every layer of a block adds half as many.
    stages: for each dense block, its number of layers.
    mean: per-channel mean that is subtracted from the images, or one for all channels.
    std: per-channel standard deviation that they are divided by, as above.
    dtype: computation dtype. Parameters, normalisation and logits are float32.
    norm: "batch" or "group", as in `ResNet`.
    stem: "small" or "large", as in `ResNet`; with "large" transitions have a ReLU too.
  """

  num_classes: int
  width: int = 64
  stages: tuple[int, ...] = (6, 12, 24, 16)
  mean: tuple[float, ...] = (0.5,)
  std: tuple[float, ...] = (0.5,)
  dtype: Any = jnp.float32
  norm: str = "batch"
  stem: str = "small"

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
    """Classifies images.

    Args:
      images: f32[N,H,W,C] in [0, 1].
      train: training mode, as in `ResNet`.

    Returns:
      f32[N,K], the logits.

    Raises:
      ValueError: `width` is odd, `images` is not a batch of images, `mean` and `std` don't fit
        it, or there is no such `norm`.
    """
    if self.width < 2 or self.width % 2:
      raise ValueError(
        f"width is {self.width}; expected an even number: layers add half of it."
      )
    x = normalise(images, self.mean, self.std)
    is_large = self.stem == "large"
    if is_large:
      x = published_stem(x, self.width, self.norm, train, dtype=self.dtype)
    else:
      x = conv(self.width, 3, dtype=self.dtype, name="stem_conv")(x)
    for stage, num_layers in enumerate(self.stages):
      if stage > 0:
        x = norm(x, self.norm, train, name=f"transition{stage - 1}_norm")
        x = nn.relu(x) if is_large else x
        name = f"transition{stage - 1}_conv"
        x = conv(x.shape[-1] // 2, 1, dtype=self.dtype, name=name)(x)
        x = _halve(x, "VALID" if is_large else "SAME")
      for layer in range(num_layers):
        bottleneck = Bottleneck(
          self.width // 2, self.dtype, self.norm, name=f"stage{stage}_layer{layer}"
        )
        x = jnp.concatenate([x, bottleneck(x, train)], axis=-1)
    x = nn.relu(norm(x, self.norm, train, name="norm"))
    features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    return nn.Dense(self.num_classes, name="head")(features)


class Bottleneck(nn.Module):
  """What a layer adds: a 3x3 convolution of a 1x1 one with four times as many features."""

  features: int
  dtype: Any
  norm: str

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N,H,W,C] to [N,H,W,features]."""
    x = nn.relu(norm(x, self.norm, train, name="norm1"))
    x = conv(4 * self.features, 1, dtype=self.dtype, name="conv1")(x)
    x = nn.relu(norm(x, self.norm, train, name="norm2"))
    return conv(self.features, 3, dtype=self.dtype, name="conv2")(x)


def _halve(x: jax.Array, padding: str) -> jax.Array:
  """Means, taken in float32, of 2x2 blocks of [N,H,W,C].

  At the edges of odd sizes those of what there is ("SAME"), or none ("VALID").
  """
  means = nn.avg_pool(
    x.astype(jnp.float32), (2, 2), (2, 2), padding=padding, count_include_pad=False
  )
  return means.astype(x.dtype)
