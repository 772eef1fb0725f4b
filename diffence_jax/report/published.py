"""Figures that the Diffence paper reports, to stand beside those of our own runs.

Source: "DIFFENCE: Fencing Membership Privacy With Diffusion Models" (NDSS 2025,
arXiv:2312.04692v3), the table of averages over CIFAR-10, CIFAR-100 and SVHN, ResNet18.
"""

from typing import NamedTuple

SOURCE = "arXiv:2312.04692v3, averages over CIFAR-10, CIFAR-100 and SVHN with ResNet18"


class Published(NamedTuple):
  """What the paper has on one defense; alone, then in scenarios 1, 2 and 3.

  Attributes:
    accuracy_delta: test accuracy minus that of the undefended classifier, percentage points.
    auc: highest attack AUC, percent.
    accuracy: highest attack accuracy, percent.
  """

  accuracy_delta: float
  auc: tuple[float, float, float, float]
  accuracy: tuple[float, float, float, float]


# By the names that our experiments have for the defenses.
DEFENSES = {
  "undefended": Published(0.0, (79.14, 68.08, 70.79, 69.12), (77.73, 65.41, 67.12, 67.02)),
  "selena": Published(-2.13, (62.22, 56.00, 60.30, 57.81), (60.92, 55.23, 58.58, 57.16)),
  "advreg": Published(-5.53, (61.32, 59.17, 61.33, 60.87), (58.94, 57.68, 58.58, 58.62)),
  "hamp": Published(-0.23, (78.96, 67.60, 71.23, 69.18), (76.08, 65.10, 66.61, 66.31)),
  "relaxloss": Published(0.97, (75.81, 67.13, 69.56, 68.60), (73.78, 64.75, 66.19, 66.07)),
  "dpsgd": Published(-9.13, (56.61, 55.47, 58.40, 56.60), (56.19, 55.40, 56.92, 56.35)),
  "memguard": Published(0.0, (69.53, 66.76, 67.23, 67.48), (68.21, 64.47, 65.30, 65.51)),
}
