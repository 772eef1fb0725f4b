"""A classifier of one's own, trained with PyTorch: saved, imported, protected and audited.

    pip install -e '.[torch]'
    python experiments/torch_round_trip.py --config=configs/digits.py --workdir=runs/round_trip

Trains a narrow ResNet18 in PyTorch on the config's members, writes a checkpoint with
`torch.save`, turns it into a saved model with `diffence import-torch`, checks that both give
the same logits for all images, and runs the config with `classifier.saved_model` and an index
file that names the members. Prints the report's table and writes `round_trip.json`.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.")
_WORKDIR = flags.DEFINE_string("workdir", None, "For the checkpoint, the models and the run.")
_EPOCHS = flags.DEFINE_integer("epochs", 60, "Of PyTorch's training.")
_WIDTH = flags.DEFINE_integer("width", 16, "Features of the first stage; published: 64.")


def train(members, num_classes: int, seed: int):
  """Trains a ResNet18 in PyTorch on a dataset, by Adam in batches of 64."""
  import torch
  from torch_networks import ResNet

  from diffence_jax.models import ResNet18

  torch.manual_seed(seed)
  network = ResNet(ResNet18(num_classes=num_classes, width=_WIDTH.value), 1)
  optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
  images, labels = to_torch(members.images), torch.tensor(members.labels, dtype=torch.long)
  network.train()
  for _ in range(_EPOCHS.value):
    for rows in torch.randperm(len(labels)).split(64):
      optimizer.zero_grad()
      loss = torch.nn.functional.cross_entropy(network(images[rows]), labels[rows])
      loss.backward()
      optimizer.step()
  return network.eval()


def to_torch(images: np.ndarray):
  """Images u8[N,H,W,C] as a tensor f32[N,C,H,W] in [0, 1]."""
  import torch

  return torch.tensor(images.transpose(0, 3, 1, 2).astype(np.float32) / 255.0)


def main(_) -> None:
  """Trains, saves, imports, compares, runs and prints."""
  import torch

  import diffence_jax as dj
  from diffence_jax.cli import import_torch as import_command
  from diffence_jax.experiment.plan import plan
  from diffence_jax.experiment.run import run
  from diffence_jax.models import saved as saved_model
  from diffence_jax.report.table import format_table

  folder, config = Path(_WORKDIR.value), _CONFIG.value
  folder.mkdir(parents=True, exist_ok=True)
  experiment = plan(config)
  dataset, split = experiment.dataset, experiment.split
  dj.data.write_index_file(split, folder / "members.json")

  checkpoint, imported = folder / "resnet18.pth", folder / "resnet18"
  network = train(dataset.take(split.members), dataset.num_classes, config.seed)
  torch.save({"state_dict": network.state_dict()}, checkpoint)
  shutil.rmtree(imported, ignore_errors=True)
  arguments = [
    "resnet18",
    str(checkpoint),
    f"--output={imported}",
    "--set",
    "mean=0.5",
    "std=0.5",
  ]
  import_command.run(["import-torch", *arguments])

  module, variables = saved_model.load_model(imported)
  images = dataset.images.astype(np.float32) / 255.0
  ours = np.asarray(dj.models.predictor(module, variables)(None, images))
  with torch.no_grad():
    theirs = network(to_torch(dataset.images)).numpy()

  config.classifier.saved_model = str(imported)
  config.data.index_file = str(folder / "members.json")
  results = run(config, folder / "run")
  figures = {
    "largest_logit_difference": float(np.abs(ours - theirs).max()),
    "labels_that_differ": int(np.sum(ours.argmax(axis=-1) != theirs.argmax(axis=-1))),
    "images": len(images),
    "predictors": {
      row.name: {
        "highest_auc": row.highest_auc.value,
        "label_changes": row.label_changes,
        "test_accuracy": row.test_accuracy.value,
      }
      for row in results.predictors
    },
  }
  (folder / "round_trip.json").write_text(json.dumps(figures, indent=2))
  print(format_table(results))
  print(
    f"\nPyTorch and JAX: logits differ by {figures['largest_logit_difference']:.1e} at most, "
    f"labels on {figures['labels_that_differ']} of {len(images)} images."
  )


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
