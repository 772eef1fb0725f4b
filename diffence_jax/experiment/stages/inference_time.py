"""The stage that times answers, with and without Diffence."""

import dataclasses
import json
import time
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np

from diffence_jax import models, parallel, rng
from diffence_jax.audit.predictors import policy_title
from diffence_jax.audit.record import make_record_step
from diffence_jax.batching import to_float
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.stages.audit import Audit
from diffence_jax.experiment.store import Store

# How often answers are timed; the median is kept.
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class InferenceTime(Stage):
  """Times the classifier alone and behind a policy, compiled, on one device.

  Attributes:
    audit: whose predictors are timed.
    samples: that are asked about, in one batch.
    policy: a policy of the audit, as the config has it.
  """

  name: ClassVar[str] = "inference_time"

  audit: Audit
  samples: Samples
  policy: str

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `milliseconds.json`: "alone" and "diffence", for a sample."""
    queries = self.audit.queries
    classifier, purification = queries.classifier.load(store), queries.purification
    denoiser = purification.network(queries.diffusion.load(store))
    settings = {"num_candidates": self.audit.num_candidates, "chunk_size": compute.chunk_size}
    settings |= purification.sampler
    one_device = parallel.batch_mesh(jax.local_devices()[:1])
    record_step = make_record_step(classifier.module, denoiser.module, one_device, **settings)
    images = to_float(np.asarray(self.samples.images))
    variables = classifier.variables, denoiser.variables
    shared = (rng.seed_key(0), *variables, purification.sampler_schedule())
    fitted = self.audit.load_predictors(store)
    (defended,) = [
      candidate
      for candidate in fitted
      if candidate.predictor.stream == policy_title(self.policy)
    ]
    predict = models.compiled_predictor(classifier.module)
    finish = defended.finish or (lambda logits: logits)

    def diffence():
      ids = np.arange(len(images), dtype=np.int32)
      raw, candidates = map(np.asarray, record_step(shared, (images, ids)))
      return defended.answer(candidates, raw)

    timed = {
      "alone": lambda: finish(np.asarray(predict(classifier.variables, images))),
      "diffence": diffence,
    }
    milliseconds = {
      name: 1e3 * _median_seconds(function) / len(images) for name, function in timed.items()
    }
    (folder / "milliseconds.json").write_text(json.dumps(milliseconds))

  def load(self, store: Store) -> dict[str, float]:
    """What was found."""
    return json.loads((store.open(self) / "milliseconds.json").read_text())

  def cost(self) -> str:
    """What is timed."""
    return f"{len(self.samples)} images, {ROUNDS + 1} times in {policy_title(self.policy)}"


def _median_seconds(function):
  function()
  seconds = []
  for _ in range(ROUNDS):
    start = time.perf_counter()
    jax.block_until_ready(function())
    seconds.append(time.perf_counter() - start)
  return float(np.median(seconds))
