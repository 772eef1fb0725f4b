"""The state dicts of ResNet-50s, by the same publishers' names as those of ResNet-18s.

Deeper ones of the same blocks, ResNet-101 and ResNet-152, are read too.
"""

from diffence_jax.interop.resnet18 import resnet_layout

RESNET50 = resnet_layout((0, 1, 3, 4, 6, 7))
