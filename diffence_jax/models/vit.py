"""A vision transformer for small images (Dosovitskiy et al. 2021).

The network, parameter for parameter, of early versions of lucidrains/vit-pytorch with the
settings that Diffence trains; see `diffence_jax.interop`.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffence_jax.models.layers import normalise


class ViT(nn.Module):
  """Attention among square patches of the image and a class token; 9.5 M parameters.

  The embeddings of positions are parameters, so a trained network is for one size of image.

  Attributes:
    num_classes: classes K.
    width: features of a patch between layers.
    patch: height and width of a patch; those of the image are multiples of it.
    depth: layers, each attention and a perceptron.
    heads: attention heads.
    attention_width: features of all heads together, a multiple of `heads`; None for `width`.
    mlp_width: hidden features of the perceptrons; None for `width`.
    dropout: dropout rate of embeddings and of all that a layer adds, in training mode.
    mean: per-channel mean that is subtracted from the images, or one for all channels.
    std: per-channel standard deviation that they are divided by, as above.
    dtype: computation dtype. Parameters, normalisation, softmax and logits are float32.
  """

  num_classes: int
  width: int = 512
  patch: int = 4
  depth: int = 6
  heads: int = 8
  attention_width: int | None = None
  mlp_width: int | None = None
  dropout: float = 0.1
  mean: tuple[float, ...] = (0.5,)
  std: tuple[float, ...] = (0.5,)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
    """Classifies images.

    Args:
      images: f32[N,H,W,C] in [0, 1].
      train: training mode: dropout is on and needs an rng named "dropout".

    Returns:
      f32[N,K], the logits.

    Raises:
      ValueError: `images` is not a batch of images, or not of whole patches; `mean` and `std`
        don't fit it; or the heads cannot divide their features.
    """
    drop = functools.partial(nn.Dropout(self.dropout), deterministic=not train)
    patches = _patches(normalise(images, self.mean, self.std), self.patch)
    x = nn.Dense(self.width, dtype=self.dtype, name="patch_embedding")(patches)

    token = self._drawn("cls_token", 1).astype(x.dtype)
    x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], axis=1)
    x = drop(x + self._drawn("pos_embedding", x.shape[1]).astype(x.dtype))

    for layer in range(self.depth):
      attention = Attention(
        self.heads,
        self.attention_width or self.width,
        self.dtype,
        name=f"layer{layer}_attention",
      )
      x = x + drop(attention(_layer_norm(x, f"layer{layer}_attention_norm")))
      h = _layer_norm(x, f"layer{layer}_mlp_norm")
      h = nn.Dense(self.mlp_width or self.width, dtype=self.dtype, name=f"layer{layer}_mlp1")(h)
      h = drop(nn.gelu(h, approximate=False))
      x = x + drop(nn.Dense(self.width, dtype=self.dtype, name=f"layer{layer}_mlp2")(h))

    # Only the class token is read.
    features = _layer_norm(x[:, 0], "norm").astype(jnp.float32)
    return nn.Dense(self.num_classes, name="head")(features)

  def _drawn(self, name: str, num_tokens: int) -> jax.Array:
    """A parameter of its own, f32[1,num_tokens,width]; drawn from N(0, 1), as published."""
    shape = (1, num_tokens, self.width)
    if self.has_variable("params", name):
      shape_there = self.get_variable("params", name).shape
      if shape_there != shape:
        raise ValueError(
          f"The images have {num_tokens - 1} patches, and {name} is "
          f"{list(shape_there)}; expected {list(shape)}. Pass images of the size that the "
          "network was trained on."
        )
    return self.param(name, nn.initializers.normal(1.0), shape, jnp.float32)


class Attention(nn.Module):
  """Self-attention among the tokens of an image.

  Attributes:
    heads: how many.
    features: of all of them together.
    dtype: computation dtype; the softmax is float32.
  """

  heads: int
  features: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N,T,D] to the same shape."""
    if self.features % self.heads:
      raise ValueError(
        f"attention_width is {self.features}; expected a multiple of the {self.heads} heads. "
        "It is the width where it is not given."
      )
    qkv = nn.Dense(3 * self.features, use_bias=False, dtype=self.dtype, name="qkv")(x)
    qkv = qkv.reshape(*x.shape[:2], 3, self.heads, self.features // self.heads)
    query, key, value = jnp.moveaxis(qkv, 2, 0)
    scores = jnp.einsum("nqhd,nkhd->nhqk", query, key, preferred_element_type=jnp.float32)
    weights = nn.softmax(scores * query.shape[-1] ** -0.5).astype(self.dtype)
    h = jnp.einsum("nhqk,nkhd->nqhd", weights, value).reshape(*x.shape[:2], self.features)
    return nn.Dense(x.shape[-1], dtype=self.dtype, name="out")(h)


def _layer_norm(x: jax.Array, name: str) -> jax.Array:
  """Layer normalisation in float32, with PyTorch's epsilon."""
  return nn.LayerNorm(epsilon=1e-5, name=name)(x.astype(jnp.float32)).astype(x.dtype)


def _patches(images: jax.Array, size: int) -> jax.Array:
  """Cuts [N,H,W,C] into [N,P,size*size*C]: row by row, in a patch too, channels last."""
  n, height, width, channels = images.shape
  if size < 1:
    raise ValueError(f"patch is {size}; expected at least 1.")
  if height % size or width % size:
    raise ValueError(
      f"The images are {height}x{width}; expected multiples of the patch, {size}. Set patch to "
      "a size that divides them."
    )
  x = images.reshape(n, height // size, size, width // size, size, channels)
  return x.swapaxes(2, 3).reshape(n, -1, size * size * channels)
