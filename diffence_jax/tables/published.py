"""Figures that the Diffence paper reports, to stand beside those of our own runs.

Source: "DIFFENCE: Fencing Membership Privacy With Diffusion Models" (NDSS 2025,
arXiv:2312.04692v3), the table of averages over CIFAR-10, CIFAR-100 and SVHN, ResNet18, and what
it says of costs.
"""

import statistics
from typing import Any, NamedTuple

SOURCE = "arXiv:2312.04692v3, averages over CIFAR-10, CIFAR-100 and SVHN with ResNet18"
COSTS = (
  "hours of training are of CIFAR-10, milliseconds on an RTX-8000; only the ratios compare "
  "with ours, of ranges those of the middles"
)


class Published(NamedTuple):
  """What the paper has on one defense; alone, then in scenarios 1, 2 and 3.

  Attributes:
    accuracy_delta: test accuracy minus that of the undefended classifier, percentage points.
    auc: highest attack AUC, percent.
    accuracy: highest attack accuracy, percent.
    ece: expected calibration error, in [0, 1]; None where it is not published.
    train_hours: on CIFAR-10; None where it is not published.
    alone_ms: inference without Diffence, milliseconds a sample on an RTX-8000, the least and
      the most that it reports; None where it is not published.
    diffence_ms: the same with Diffence.
  """

  accuracy_delta: float
  auc: tuple[float, float, float, float]
  accuracy: tuple[float, float, float, float]
  ece: tuple[float | None, ...] = (None, None, None, None)
  train_hours: float | None = None
  alone_ms: tuple[float, float] | None = None
  diffence_ms: tuple[float, float] | None = None


# By the names that our experiments have for the defenses.
DEFENSES = {
  "undefended": Published(
    0.0,
    (79.14, 68.08, 70.79, 69.12),
    (77.73, 65.41, 67.12, 67.02),
    ece=(0.139, 0.142, 0.126, 0.131),
    train_hours=0.6,
    alone_ms=(24.0, 26.0),
    diffence_ms=(81.0, 82.0),
  ),
  "selena": Published(
    -2.13,
    (62.22, 56.00, 60.30, 57.81),
    (60.92, 55.23, 58.58, 57.16),
    train_hours=10.9,
  ),
  "advreg": Published(
    -5.53,
    (61.32, 59.17, 61.33, 60.87),
    (58.94, 57.68, 58.58, 58.62),
    train_hours=10.9,
  ),
  "hamp": Published(
    -0.23,
    (78.96, 67.60, 71.23, 69.18),
    (76.08, 65.10, 66.61, 66.31),
    # Published as 222% above the undefended classifier's.
    ece=(0.139 * 3.22, None, None, None),
    train_hours=0.8,
  ),
  "relaxloss": Published(
    0.97,
    (75.81, 67.13, 69.56, 68.60),
    (73.78, 64.75, 66.19, 66.07),
    train_hours=0.5,
  ),
  "dpsgd": Published(
    -9.13,
    (56.61, 55.47, 58.40, 56.60),
    (56.19, 55.40, 56.92, 56.35),
    train_hours=0.8,
  ),
  "memguard": Published(
    0.0,
    (69.53, 66.76, 67.23, 67.48),
    (68.21, 64.47, 65.30, 65.51),
    alone_ms=(586.0, 732.0),
  ),
}


def published(defense: str) -> dict[str, Any] | None:
  """What the paper has on a defense, and how its costs compare.

  Args:
    defense: as our experiments call it.

  Returns:
    JSON-able, the fields of `Published` and, each None where it does not follow from them:
    `training_ratio` and `inference_alone_ratio`, to undefended, and `inference_ratio`, with
    Diffence to alone; of ranges the middles. None if the paper has not that defense.
  """
  theirs, bare = DEFENSES.get(defense), DEFENSES["undefended"]
  return theirs and {
    **theirs._asdict(),
    "training_ratio": _ratio(theirs.train_hours, bare.train_hours),
    "inference_alone_ratio": _ratio(_middle(theirs.alone_ms), _middle(bare.alone_ms)),
    "inference_ratio": _ratio(_middle(theirs.diffence_ms), _middle(theirs.alone_ms)),
  }


def _middle(ends):
  return ends and statistics.mean(ends)


def _ratio(after, before):
  return after / before if after and before else None
