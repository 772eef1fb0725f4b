"""How many answers a second MemGuard defends, and how many of them it moves to 1/2.

    python experiments/bench_memguard.py

Made-up logits of an overfitted classifier, members surer than non-members; an attacker trained
on a part of either side; the others defended. What is timed is compiled and warmed up. Prints
a table in Markdown, a line for every number of classes: the median of the rounds, their range,
the attacker's AUC before and after, and how far it was from 1/2.
"""

import statistics
import time

import jax
import numpy as np
from absl import app, flags
from scipy.special import expit

from diffence_jax import metrics
from diffence_jax.defense import attacker_logit, memguard_logits, train_memguard_attacker

_CLASSES = flags.DEFINE_list("classes", ["10", "100"], "Numbers of classes.")
_SAMPLES = flags.DEFINE_integer("samples", 2000, "Samples to defend, half of them members.")
_KNOWN = flags.DEFINE_integer("known", 1000, "Samples of either side that train the attacker.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds; the median is reported.")
_CHUNK = flags.DEFINE_integer("chunk_size", 256, "Samples worked on at a time.")


def draw_logits(draw, num: int, num_classes: int, signal: float) -> np.ndarray:
  """Logits f32[num,K] whose largest is some `signal` above the others."""
  logits = draw.normal(0.0, 1.5, (num, num_classes))
  labels = draw.integers(0, num_classes, num)
  logits[np.arange(num), labels] += np.maximum(draw.normal(signal, 3.0, num), 1.0)
  return logits.astype(np.float32)


def measure(num_classes: int) -> str:
  """A line of the table."""
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

  def run():
    return memguard_logits(params, logits, chunk_size=_CHUNK.value).block_until_ready()

  moved, seconds = run(), []
  for _ in range(_ROUNDS.value):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
  before, after = (np.asarray(attacker_logit(params, z)) for z in (logits, moved))
  kept = np.mean(np.argmax(moved, axis=1) == np.argmax(logits, axis=1))
  crossed = np.sum((before > 0) != (after > 0))
  rates = [len(logits) / s for s in (statistics.median(seconds), max(seconds), min(seconds))]
  auc = [metrics.roc(h[:half], h[half:]).auc for h in (before, after)]
  distance = [np.median(np.abs(expit(h) - 0.5)) for h in (before, after)]
  distortion = np.abs(jax.nn.softmax(moved) - jax.nn.softmax(logits)).sum(axis=1)
  return (
    f"| {num_classes} | {rates[0]:,.0f} ({rates[1]:,.0f} to {rates[2]:,.0f}) "
    f"| {crossed:,} of {len(logits):,} | {kept:.0%} | {auc[0]:.3f} -> {auc[1]:.3f} "
    f"| {distance[0]:.3f} -> {distance[1]:.3f} | {np.median(distortion):.3f} |"
  )


def main(_) -> None:
  """Measures and prints."""
  print(f"{jax.devices()[0].device_kind} x{jax.device_count()}\n")
  print(
    "| classes | samples a second (range) | moved across 1/2 | labels kept | attacker's AUC "
    "| median distance from 1/2 | median L1 distortion |"
  )
  print("|---|---|---|---|---|---|---|")
  for num_classes in map(int, _CLASSES.value):
    print(measure(num_classes), flush=True)


if __name__ == "__main__":
  app.run(main)
