"""The diffusion networks' operations, counted layer by layer from their fields.

Independently of XLA. Two for a multiplication and an addition; normalisation, activations,
softmax and resampling without weights are left out.
"""

from collections import Counter

from diffence_jax.models import ADMUNet, DDPMUNet


def conv_flops(inputs: int, outputs: int, size: int, kernel: int = 3, stride: int = 1) -> int:
  """FLOPs of a convolution on `size` x `size` pixels, without those on the padding."""
  reach = kernel // 2
  taps = sum(
    0 <= center + offset < size
    for center in range(0, size, stride)
    for offset in range(-reach, reach + 1)
  )
  return 2 * inputs * outputs * taps**2


def block_flops(
  module: ADMUNet | DDPMUNet, inputs: int, outputs: int, size: int, time_outputs: int = 1
) -> Counter:
  """FLOPs of a residual block whose convolutions see `size` x `size` pixels.

  Args:
    module: its network.
    inputs: channels before.
    outputs: channels after.
    size: height and width.
    time_outputs: numbers that the time embedding gives a channel, a shift, and a scale.
  """
  convolutions = conv_flops(inputs, outputs, size) + conv_flops(outputs, outputs, size)
  if inputs != outputs:
    convolutions += conv_flops(inputs, outputs, size, kernel=1)
  dense = 2 * 4 * module.channels * time_outputs * outputs
  return Counter(convolutions=convolutions, dense=dense)


def attention_flops(features: int, size: int) -> Counter:
  """FLOPs of self-attention: projections, then scores and averages, of any number of heads."""
  length = size**2
  return Counter(
    projections=2 * length * features * 4 * features, attention=2 * 2 * length**2 * features
  )


def forward_flops(module: ADMUNet | DDPMUNet, size: int) -> Counter:
  """FLOPs of one image of `size` x `size` pixels, by kind."""
  widths = [int(multiplier * module.channels) for multiplier in module.multipliers]
  scale_shift = isinstance(module, ADMUNet) and module.scale_shift_norm
  time_outputs = 2 if scale_shift else 1

  def block(inputs, outputs, level=None):
    whole = block_flops(module, inputs, outputs, size, time_outputs)
    if level in module.attention_levels:
      whole += attention_flops(outputs, size)
    return whole

  def resampled(stride):
    """Between levels; a block resamples before its convolutions, a convolution itself."""
    if isinstance(module, ADMUNet) and module.resblock_updown:
      return block_flops(module, features, features, size // stride, time_outputs)
    return Counter(convolutions=conv_flops(features, features, size, stride=stride))

  total = Counter(dense=2 * (module.channels + 4 * module.channels) * 4 * module.channels)
  # The first convolution makes as many features as the first level has, or `channels`.
  features = widths[0] if isinstance(module, ADMUNet) else module.channels
  total["convolutions"] += conv_flops(module.out_channels, features, size)
  skips = [features]
  for level, width in enumerate(widths):
    for _ in range(module.num_res_blocks):
      total += block(features, width, level)
      features = width
      skips.append(features)
    if level < len(widths) - 1:
      total += resampled(stride=2)
      skips.append(features)
      size //= 2
  total += block(features, features) + attention_flops(features, size)
  total += block(features, features)
  for level, width in reversed(list(enumerate(widths))):
    for _ in range(module.num_res_blocks + 1):
      total += block(features + skips.pop(), width, level)
      features = width
    if level:
      size *= 2
      total += resampled(stride=1)
  learned_variance = isinstance(module, ADMUNet) and module.learned_variance
  outputs = (2 if learned_variance else 1) * module.out_channels
  total["convolutions"] += conv_flops(features, outputs, size)
  return total
