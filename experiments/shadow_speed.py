"""How many shadow models an hour trains: one after another, several at once, and in PyTorch.

    pip install torch && python experiments/shadow_speed.py --config=configs/digits.py:audit

The same residual network, optimizer, batch size and images for all, all in one process, one
way after the other in several rounds, so that whatever else slows the machine slows all. What
is timed are training steps, compiled and warmed up; an hour's models follow from the steps
that the config's recipe takes. Prints a table in Markdown: the median of the rounds, their
range, and the ratio to PyTorch. Without PyTorch its line is left out.
"""

import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from step_timing import ensemble_steps

from diffence_jax import models, parallel, pipeline

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.")
_AT_ONCE = flags.DEFINE_list("at_once", ["1", "2", "8"], "Models at once on a device.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; the median is reported.")
_STEPS = flags.DEFINE_integer("steps", 40, "Training steps of every model in a round.")


def torch_steps(experiment) -> Callable[[int], float]:
  """The same in PyTorch, one model, eager as one writes it."""
  import torch
  from torch import nn

  config, module = experiment.config.classifier, experiment.classifier.module
  device = "cuda" if torch.cuda.is_available() else "cpu"

  def norm_conv(before, after, size, stride):
    conv = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after))

  class Block(nn.Module):
    def __init__(self, before, after, stride):
      super().__init__()
      self.first = norm_conv(before, after, 3, stride)
      self.second = norm_conv(after, after, 3, 1)
      same = stride == 1 and before == after
      self.shortcut = nn.Identity() if same else norm_conv(before, after, 1, stride)

    def forward(self, x):
      return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))

  channels, width = experiment.dataset.images.shape[-1], module.width
  layers, before = [norm_conv(channels, width, 3, 1), nn.ReLU()], width
  for stage, num_blocks in enumerate(module.stages):
    for block in range(num_blocks):
      after = width * 2**stage
      layers.append(Block(before, after, 2 if stage and not block else 1))
      before = after
  layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, module.num_classes)]
  network = nn.Sequential(*layers).to(device)
  count = sum(p.numel() for p in network.parameters())
  assert count == models.num_parameters(experiment.classifier.variables), count
  optimizer = torch.optim.Adam(
    network.parameters(), config.learning_rate, weight_decay=config.weight_decay, amsgrad=True
  )
  members = experiment.dataset.take(experiment.split.members)
  images = torch.tensor(members.images).permute(0, 3, 1, 2).to(device)
  labels = torch.tensor(members.labels, dtype=torch.long, device=device)
  draw = np.random.default_rng(0)

  def run(num_steps: int) -> float:
    start = time.perf_counter()
    for _ in range(num_steps):
      rows = torch.from_numpy(draw.integers(0, len(images), config.batch_size)).to(device)
      batch = (images[rows].float() / 255.0 - 0.5) / 0.5
      loss = nn.functional.cross_entropy(network(batch), labels[rows])
      optimizer.zero_grad(set_to_none=True)
      loss.backward()
      optimizer.step()
    if device == "cuda":
      torch.cuda.synchronize()
    return (time.perf_counter() - start) / num_steps

  return run


def main(_) -> None:
  """Measures and prints."""
  experiment = pipeline.plan(_CONFIG.value)
  settings = experiment.config.classifier
  steps = len(experiment.recipe.schedule)
  members = experiment.dataset.take(experiment.split.members)
  examples = {"images": members.images, "labels": members.labels}
  ways = {}
  for at_once in map(int, _AT_ONCE.value):
    name = "one after another" if at_once == 1 else f"{at_once} at once"
    ways[f"diffence_jax, {name}"] = ensemble_steps(
      experiment.recipe, examples, settings.batch_size, parallel.batch_mesh(), at_once
    )
  try:
    ways["PyTorch"] = torch_steps(experiment)
  except ModuleNotFoundError:
    print("PyTorch is not installed; its line is left out.")
  seconds = {name: [] for name in ways}
  for run in ways.values():
    run(3)
  for _ in range(_ROUNDS.value):
    for name, run in ways.items():
      seconds[name].append(run(_STEPS.value))
  device = jax.devices()[0].device_kind
  print(
    f"\n{settings.model}, {models.num_parameters(experiment.classifier.variables):,} "
    f"parameters, images {'x'.join(map(str, experiment.dataset.images.shape[1:]))}, batch "
    f"{settings.batch_size}, {steps} steps a model; {device} x{jax.device_count()}\n"
  )
  print("| | ms a step and model (range) | models an hour | against PyTorch |")
  print("|---|---|---|---|")
  theirs = statistics.median(seconds.get("PyTorch", [float("nan")]))
  for name, values in seconds.items():
    middle = statistics.median(values)
    print(
      f"| {name} | {1e3 * middle:.2f} ({1e3 * min(values):.2f} to {1e3 * max(values):.2f}) "
      f"| {3600.0 / (steps * middle):,.0f} | {theirs / middle:.2f}x |"
    )


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  app.run(main)
