"""How much memory an audit at full scale takes: records written, mapped and attacked.

    python experiments/audit_memory.py --folder=/tmp/record

Made-up logits of 100 models, 50,000 examples, 18 queries and 10 classes, 3.6 GB on disk, go
through what those of a real audit do: written batch by batch by `RecordWriter`, read model by
model by `read_model`, attacked by online and offline LiRA on all queries
jointly and by RMIA. Prints the attacks' AUCs, the times and the peak of the resident memory.
"""

import resource
import shutil
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from diffence_jax import metrics
from diffence_jax.attacks import true_label_phi
from diffence_jax.attacks.lira import lira
from diffence_jax.attacks.rmia import rmia
from diffence_jax.audit.membership import membership_matrix
from diffence_jax.audit.record_files import RecordWriter, read_model

_FOLDER = flags.DEFINE_string("folder", None, "For the record; it is left there.")
_MODELS = flags.DEFINE_integer("models", 100, "Shadow models, even.")
_EXAMPLES = flags.DEFINE_integer("examples", 50_000, "Examples.")
_QUERIES = flags.DEFINE_integer("queries", 18, "Queries an example.")
_CLASSES = flags.DEFINE_integer("classes", 10, "Classes.")
_BATCH = 1000


def peak() -> float:
  """The most resident memory so far, in GiB; mapped files count."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def draw_batch(draw, difficulty, labels, members):
  """Logits f32[S,B,Q,K]: the true label's is higher for members, and scatters by model."""
  shape = (len(members), len(labels), _QUERIES.value, _CLASSES.value)
  logits = draw.standard_normal(shape, np.float32)
  shift = difficulty + members + draw.standard_normal(members.shape)
  logits[:, np.arange(len(labels)), :, labels] += shift.T[..., None].astype(np.float32)
  return logits


def main(_) -> None:
  """Writes, reads, attacks and prints."""
  folder = Path(_FOLDER.value)
  folder.mkdir(parents=True, exist_ok=True)
  num = _EXAMPLES.value
  draw = np.random.default_rng(0)
  labels = draw.integers(0, _CLASSES.value, num)
  difficulty = draw.normal(2.0, 1.5, num)
  membership = membership_matrix(_MODELS.value, num, 0)
  path = folder / "raw.npy"
  shutil.rmtree(folder / "resume", ignore_errors=True)
  writer = RecordWriter(folder, num, axis=1)
  start = time.perf_counter()
  for first in range(0, num, _BATCH):
    rows = slice(first, first + _BATCH)
    batch = draw_batch(draw, difficulty[rows], labels[rows], membership[:, rows])
    writer.write({"raw": batch})
  print(f"written in {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1e9:.2f} GB")
  start = time.perf_counter()
  phi = np.empty((_MODELS.value, num, _QUERIES.value), np.float32)
  for model in range(_MODELS.value):
    phi[model] = true_label_phi(read_model(path, model), labels)
  print(f"read in {time.perf_counter() - start:.0f} s")
  # The last model is the target, all pairs but its own are its shadow models.
  target, shadow, members = phi[-1], phi[:-2], membership[:-2]
  is_member = membership[-1]
  known = np.flatnonzero(~is_member)[: num // 10]
  reported = np.setdiff1d(np.arange(num), known)
  log_p = -np.logaddexp(0.0, -phi[:, :, 0])
  attacks = {
    "LiRA online": lambda: lira(target, shadow, members),
    "LiRA offline": lambda: lira(target, shadow, members, online=False),
    "RMIA online": lambda: rmia(
      log_p[-1], log_p[:-2], members, log_p[-1, known], log_p[:-2, known], members[:, known]
    ),
  }
  for name, attack in attacks.items():
    start = time.perf_counter()
    scores = attack()[reported]
    inside = is_member[reported]
    auc = metrics.roc(scores[inside], scores[~inside]).auc
    print(f"{name}: AUC {auc:.3f}, {time.perf_counter() - start:.0f} s")
  print(f"peak of resident memory: {peak():.2f} GiB")


if __name__ == "__main__":
  flags.mark_flag_as_required("folder")
  app.run(main)
