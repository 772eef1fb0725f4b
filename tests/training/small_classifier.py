"""A classifier for 4x4 images, with what large ones have."""

import flax.linen as nn

NUM_CLASSES = 3


class Classifier(nn.Module):
  """Small, with running statistics and dropout."""

  @nn.compact
  def __call__(self, images, *, train: bool = False):
    x = nn.Conv(4, (3, 3), use_bias=False)(images)  # a bias would drift: it does nothing
    x = nn.BatchNorm(use_running_average=not train)(x)
    x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
    return nn.Dense(NUM_CLASSES)(x.reshape(len(x), -1))
