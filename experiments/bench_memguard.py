"""How many answers a second MemGuard defends, and how many of them it moves to 1/2.

    pip install torch && python experiments/bench_memguard.py --output=bench_memguard.json

Made-up logits of an overfitted classifier, members surer than non-members; an attacker trained
on a part of either side; the others defended. Beside it the published search in PyTorch, one
sample after the other, on a few of them, with the same attacker; in turn with ours, in several
rounds of one process. What is timed is compiled and warmed up. Prints a table in Markdown, a
line for every number of classes: the medians of the rounds, their range, the attacker's AUC
before and after, and how far it was from 1/2. Without PyTorch its column is left out.
"""

import functools
from typing import Any

import jax
import measuring
import numpy as np
from absl import app, flags
from scipy.special import expit

from diffence_jax import metrics
from diffence_jax.defense import attacker_logit, memguard_logits, train_memguard_attacker

_CLASSES = flags.DEFINE_list("classes", ["10", "100"], "Numbers of classes.")
_SAMPLES = flags.DEFINE_integer("samples", 2000, "Samples to defend, half of them members.")
_KNOWN = flags.DEFINE_integer("known", 1000, "Samples of either side that train the attacker.")
_TORCH_SAMPLES = flags.DEFINE_integer("torch_samples", 20, "Samples that PyTorch defends.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds; the median is reported.")
_CHUNK = flags.DEFINE_integer("chunk_size", 256, "Samples worked on at a time.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the figures.")


def draw_logits(draw, num: int, num_classes: int, signal: float) -> np.ndarray:
  """Logits f32[num,K] whose largest is some `signal` above the others."""
  logits = draw.normal(0.0, 1.5, (num, num_classes))
  labels = draw.integers(0, num_classes, num)
  logits[np.arange(num), labels] += np.maximum(draw.normal(signal, 3.0, num), 1.0)
  return logits.astype(np.float32)


def torch_search(params):
  """The published search of one sample, `f32[K] -> f32[K]`, in PyTorch."""
  import torch

  layers = [
    (torch.tensor(np.asarray(kernel)), torch.tensor(np.asarray(bias)))
    for kernel, bias in zip(*params, strict=True)
  ]

  def attacker(probabilities):
    x = torch.sort(probabilities).values
    for kernel, bias in layers[:-1]:
      x = torch.relu(x @ kernel + bias)
    return (x @ layers[-1][0] + layers[-1][1])[0]

  def search(logits: np.ndarray) -> np.ndarray:
    start = torch.tensor(logits)
    label, given = int(start.argmax()), torch.softmax(start, 0)
    sign, others = torch.sign(attacker(given)), torch.arange(len(start)) != label
    best = start
    for c3 in 10.0 ** np.arange(-1, 6):
      z, is_found = start, False
      for _ in range(300):
        z = z.detach().requires_grad_()
        probabilities = torch.softmax(z, 0)
        loss = attacker(probabilities).abs() + c3 * (probabilities - given).abs().sum()
        loss = loss + 10.0 * torch.relu(z[others].max() - z[label])
        (gradient,) = torch.autograd.grad(loss, z)
        if not gradient.any():
          break
        z = (z - 0.1 * gradient / gradient.norm()).detach()
        crossed = attacker(torch.softmax(z, 0)) * sign <= 0
        if crossed and int(z.argmax()) == label:
          best, is_found = z, True
          break
      if not is_found:
        break
    return best.numpy()

  return search


def measure(num_classes: int) -> dict[str, Any]:
  """The figures for so many classes."""
  draw = np.random.default_rng(0)
  # More classes take a larger logit for the same confidence.
  shift = np.log(num_classes / 10.0)
  half = _SAMPLES.value // 2
  sides = [
    draw_logits(draw, _KNOWN.value + half, num_classes, signal + shift) for signal in (11, 5)
  ]
  known, others = zip(*(np.split(side, [_KNOWN.value]) for side in sides), strict=True)
  params = train_memguard_attacker(jax.random.key(0), *known)
  logits = jax.device_put(np.concatenate(others))
  ours = functools.partial(memguard_logits, params, logits, chunk_size=_CHUNK.value)
  moved = ours()
  ways = {"ours": lambda: measuring.timed(ours) / len(logits)}
  try:
    search = torch_search(params)
  except ModuleNotFoundError:
    print("PyTorch is not installed; its column is left out.")
  else:
    few = draw.choice(np.asarray(logits), _TORCH_SAMPLES.value, replace=False)
    theirs = lambda: [search(row) for row in few]
    ways["PyTorch"] = lambda: measuring.timed(theirs) / len(few)
  seconds = measuring.in_turn(ways, _ROUNDS.value)
  before, after = (np.asarray(attacker_logit(params, z)) for z in (logits, moved))
  distortion = np.abs(jax.nn.softmax(moved) - jax.nn.softmax(logits)).sum(axis=1)
  return {
    "classes": num_classes,
    "samples": len(logits),
    "samples_a_second": {
      name: measuring.summary([1.0 / s for s in times]) for name, times in seconds.items()
    },
    "crossed": int(np.sum((before > 0) != (after > 0))),
    "labels_kept": float(np.mean(np.argmax(moved, axis=1) == np.argmax(logits, axis=1))),
    "auc": [metrics.roc(h[:half], h[half:]).auc for h in (before, after)],
    "distance": [float(np.median(np.abs(expit(h) - 0.5))) for h in (before, after)],
    "distortion": float(np.median(distortion)),
  }


def main(_) -> None:
  """Measures, prints and writes."""
  entries = [measure(num_classes) for num_classes in map(int, _CLASSES.value)]
  names = list(entries[0]["samples_a_second"])
  rows = []
  for entry in entries:
    rates = entry["samples_a_second"]
    (auc_before, auc_after), (before, after) = entry["auc"], entry["distance"]
    rows.append(
      [
        entry["classes"],
        *(measuring.with_range(rates[name], ",.4g") for name in names),
        f"{rates['ours']['median'] / rates[names[-1]]['median']:,.0f}x",
        f"{entry['crossed']:,} of {entry['samples']:,}",
        f"{entry['labels_kept']:.0%}",
        f"{auc_before:.3f} -> {auc_after:.3f}",
        f"{before:.3f} -> {after:.3f}",
        f"{entry['distortion']:.3f}",
      ]
    )
  measuring.show_table(
    [
      "classes",
      *(f"{name}, samples a second (range)" for name in names),
      "against PyTorch",
      "moved across 1/2",
      "labels kept",
      "attacker's AUC",
      "median distance from 1/2",
      "median L1 distortion",
    ],
    rows,
  )
  measuring.write_figures(_OUTPUT.value, {"memguard": entries})


if __name__ == "__main__":
  app.run(main)
