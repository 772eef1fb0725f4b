"""A PyTorch classifier, audited with shadow models of its own, and protected.

    apt-get install dataset-fashion-mnist      # Debian's package of the four IDX files
    python examples/audit_pytorch.py --workdir=runs/pytorch

`train` is an ordinary training script. Experiments call it for the classifier and for every
shadow model, ask what it returns, and attack the answers, without and with Diffence. Then the
classifier is protected, and both are asked about images that neither has seen.

`--framework=flax` audits the same network, trained in the same way by Flax, to compare.
`--small` is a quick try on scikit-learn's digits, too small to learn from.
"""

import argparse
import time
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import torch

import diffence_jax as dj
from diffence_jax.experiment.config import base_config
from diffence_jax.experiment.presets import shrink
from diffence_jax.report.table import format_table

_DATA = Path("/usr/share/datasets/fashion-mnist")
_BATCH = 200


def train(images, labels, seed, *, epochs: int = 30, width: int = 16):
  """Trains a classifier on images f32[N,H,W,C] in [0, 1] and labels i64[N]."""
  torch.set_num_threads(1)  # a network this small gains nothing from more
  torch.manual_seed(seed)
  inputs = torch.from_numpy(images).permute(0, 3, 1, 2)  # channels first
  targets = torch.from_numpy(labels)
  network = torch.nn.Sequential(
    torch.nn.Conv2d(inputs.shape[1], width, 3, padding=1),
    torch.nn.ReLU(),
    torch.nn.MaxPool2d(2),
    torch.nn.Conv2d(width, 2 * width, 3, padding=1),
    torch.nn.ReLU(),
    torch.nn.MaxPool2d(2),
    torch.nn.Flatten(),
    torch.nn.LazyLinear(10),
  )
  network(inputs[:1])  # gives the last layer its shape
  optimizer = torch.optim.Adam(network.parameters(), 1e-3, weight_decay=1e-6, amsgrad=True)
  for _ in range(epochs):
    for rows in torch.randperm(len(inputs)).split(64):
      optimizer.zero_grad()
      torch.nn.functional.cross_entropy(network(inputs[rows]), targets[rows]).backward()
      optimizer.step()
  network.eval()

  def predict(images):  # f32[n,H,W,C] in [0, 1] -> logits f32[n,10]
    with torch.no_grad():
      return network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()

  return predict


class Net(nn.Module):
  """The same network in Flax, with weights drawn from PyTorch's law."""

  num_classes: int
  width: int = 16

  @nn.compact
  def __call__(self, images, *, train=False):
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    hidden = images
    for width in (self.width, 2 * self.width):
      hidden = nn.relu(nn.Conv(width, (3, 3), kernel_init=init)(hidden))
      hidden = nn.max_pool(hidden, (2, 2), (2, 2))
    hidden = hidden.reshape(len(hidden), -1)
    return nn.Dense(self.num_classes, kernel_init=init)(hidden)


def make_config(framework: str, small: bool, seed: int):
  """The experiment: 1,000 members of Fashion-MNIST, and 16 shadow models."""
  config = base_config()
  config.name, config.variant, config.seed = f"audit_{framework}", "", seed
  if not small:
    config.data.source, config.data.options = "idx", {"path": str(_DATA)}
  config.data.nonmembers_from = "any" if small else "test"
  config.data.num_members = config.data.num_nonmembers = 1000
  config.data.num_reference = 0
  config.classifier.epochs = 30
  config.diffusion.fields = {
    "channels": 16, "multipliers": (1, 2, 2), "attention_levels": (), "num_res_blocks": 1,
  }  # fmt: skip
  config.diffusion.num_steps, config.diffusion.batch_size = 600, 32
  config.diffusion.warmup_steps = 100
  config.purify.num_candidates = 10
  config.purify.policies = ("scenario_1", "scenario_2", "scenario_3")
  config.shadow.num_models = 16
  config.shadow.num_recorded = 10
  if small:
    shrink(config)
    config.purify.policies = ("scenario_3",)
    config.audit.attacks = ("confidence", "lira_online", "rmia_online")
  if framework == "torch":
    config.classifier.train = "audit_pytorch:train"
    config.classifier.train_options = {"epochs": config.classifier.epochs}
  else:
    config.classifier.model = "audit_pytorch:Net"
    config.classifier.fields = {}
  return config


def compare(workdir: Path, num_images: int) -> None:
  """Asks the classifier, alone and protected, about images, and prints the difference."""
  run = dj.load_run(workdir)
  predict = run.predict  # a host's classifier cannot be stored: trained again, from its seed
  protected = run.protect("scenario_3")
  images = np.asarray(run.experiment.dataset.images[-num_images:], np.float32) / 255
  alone = [np.asarray(predict(None, part)) for part in np.split(images, _parts(images))]
  protected(jax.random.key(0), images[:_BATCH])  # compiles
  start = time.perf_counter()
  behind = [
    np.asarray(protected(jax.random.key(i), part))
    for i, part in enumerate(np.split(images, _parts(images)))
  ]
  seconds = time.perf_counter() - start
  changed = np.sum(np.concatenate(alone).argmax(1) != np.concatenate(behind).argmax(1))
  print(
    f"Protected, {changed} of {num_images} labels are others than alone; an answer takes "
    f"{1000 * seconds / num_images:.3g} ms."
  )


def _parts(images: np.ndarray) -> range:
  return range(_BATCH, len(images), _BATCH)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
  parser.add_argument("--workdir", type=Path, default=Path("runs/pytorch"))
  parser.add_argument("--framework", choices=("torch", "flax"), default="torch")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--images", type=int, default=1000, help="that both are asked about")
  parser.add_argument("--small", action="store_true", help="try it, learning nothing")
  given = parser.parse_args()
  if not given.small and not _DATA.is_dir():
    parser.error(f"there is no {_DATA}: apt-get install dataset-fashion-mnist, or --small.")
  results = dj.run(make_config(given.framework, given.small, given.seed), given.workdir)
  print(format_table(results))
  print(f"\nThe whole report: {given.workdir}/report.html")
  compare(given.workdir, given.images)


if __name__ == "__main__":
  main()
