"""Audits of classifiers: planted leaks, the same samples in all forms, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import diffence_jax as dj
from diffence_jax.cli import main
from diffence_jax.recorded import model

SHAPE, CLASSES, NUM = (4, 4, 1), 3, 60
QUICK = ("loss", "noise_robustness", "hop_skip_jump")


def make_samples(seed, num=NUM):
  """Images u8[N,4,4,1] whose three columns tell the class, and noise."""
  draw = np.random.default_rng(seed)
  labels = np.arange(num) % CLASSES
  images = draw.integers(0, 100, (num, *SHAPE))
  images[np.arange(num), :, labels, 0] += draw.integers(0, 80, (num, 4))
  return images.astype(np.uint8), labels


MEMBERS, NONMEMBERS = make_samples(1), make_samples(2)


def classify(images):
  """Knows nothing of anybody."""
  return 8.0 * images[:, :, :CLASSES, 0].mean(axis=1)


def remember(images):
  """Sure of its members, and of all that is near to one."""
  flat = MEMBERS[0].reshape(NUM, -1) / 255.0
  apart = np.abs(images.reshape(len(images), 1, -1) - flat).mean(axis=-1)
  nearest = apart.argmin(axis=1)
  lead = 9.0 * np.exp(-20.0 * apart.min(axis=1))
  logits = classify(images)
  logits[np.arange(len(images)), MEMBERS[1][nearest]] += lead
  return logits


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
  """The same samples: (members, nonmembers) as folders, archives and index files."""
  root = tmp_path_factory.mktemp("samples")
  index = {}
  for group, (images, labels) in (("members", MEMBERS), ("nonmembers", NONMEMBERS)):
    np.savez(root / f"{group}.npz", images=images, labels=labels)
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
      file = root / group / "abc"[label] / f"{n}.png"
      file.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image[..., 0]).save(file)
      index.setdefault(group, []).append(file.relative_to(root).as_posix())
  (root / "index.json").write_text(json.dumps(index))
  by_id = {"data": "members.npz", "members": list(range(NUM))}
  (root / "ids.json").write_text(json.dumps(by_id))
  return root


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
  """(results, folder) of the classifier that leaks."""
  folder = tmp_path_factory.mktemp("leaking") / "out"
  with pytest.MonkeyPatch.context() as patch:
    few = {"num_iterations": 1, "initial_evaluations": 10, "init_trials": 10}
    patch.setattr(model, "_QUICK", {"hop_skip_jump": few})
    return dj.audit_model(remember, MEMBERS, NONMEMBERS, folder, attacks=QUICK), folder


def aucs(results):
  return {a.name: a.auc for a in results.undefended.attacks if a.threshold == "global"}


def test_a_planted_leak_is_seen_by_all_attacks(leaking):
  results, folder = leaking
  assert min(aucs(results)[name].low for name in QUICK) > 0.5
  titles = [attack.title for attack in results.undefended.attacks]
  assert titles[-1] == f"HopSkipJump, of {2 * NUM} samples"
  # Attacks on a few are no headline; those that cannot be run are named.
  assert results.undefended.highest_auc.attack != "hop_skip_jump"
  assert results.num_members == results.num_nonmembers == NUM
  names = {path.name for path in folder.iterdir()}
  assert names >= {"report.html", "results.json", "results.csv", "examples.csv"}


def test_none_is_seen_where_there_is_none(tmp_path):
  predict = jax.jit(lambda key, images: 8.0 * jnp.mean(images[:, :, :CLASSES, 0], axis=1))
  results = dj.audit_model(predict, MEMBERS, NONMEMBERS, tmp_path / "out", attacks=QUICK,
                           num_few=40)  # fmt: skip
  for auc in aucs(results).values():
    assert abs(auc.value - 0.5) < auc.high - auc.low
  assert results.undefended.attacks[-1].title == "HopSkipJump, of 40 samples"


@pytest.mark.parametrize("pair", [
  ("members", "nonmembers"), ("index.json", "index.json"), ("ids.json", "nonmembers.npz"),
])  # fmt: skip
def test_folders_archives_and_index_files_give_the_same(tmp_path, forms, pair, leaking):
  attacks = ("loss", "noise_robustness")
  results = [
    dj.audit_model(remember, *sides, tmp_path / name, attacks=attacks)
    for name, sides in (("given", [forms / name for name in pair]),
                        ("arrays", (MEMBERS, NONMEMBERS)))
  ]  # fmt: skip
  assert results[0] == results[1]
  assert aucs(results[0])["loss"] == aucs(leaking[0])["loss"]


def test_an_exported_program_and_a_saved_model_are_read(tmp_path, forms):
  network = dj.models.make_classifier("small_resnet", num_classes=CLASSES, width=4)
  variables = dj.models.init(network, jax.random.key(0), SHAPE)
  dj.save_model(tmp_path / "saved", network, variables, image_channels=1)
  predict = dj.models.predictor(network, variables)
  dj.interop.export(tmp_path / "program", predict, SHAPE, platforms=("cpu",))
  results = [
    dj.audit_model(given, MEMBERS, NONMEMBERS, tmp_path / f"out{n}", attacks=("loss",))
    for n, given in enumerate((predict, tmp_path / "saved", tmp_path / "program"))
  ]
  for other in results[1:]:
    np.testing.assert_allclose(aucs(other)["loss"], aucs(results[0])["loss"], atol=1e-3)


def test_the_command(tmp_path, forms, capsys):
  given = [f"--predict={__name__}:remember", f"--members={forms / 'members'}",
           f"--nonmembers={forms / 'nonmembers'}", f"--output={tmp_path / 'out'}"]  # fmt: skip
  assert main.run(["diffence", "audit", *given, "--attacks=loss"]) == 0
  assert "of 100 pairs" in capsys.readouterr().out.lower()


def test_classes_can_be_named(tmp_path, forms):
  turned = lambda images: remember(images)[:, ::-1]
  paths = forms / "members", forms / "nonmembers"
  results = [
    dj.audit_model(predict, *paths, tmp_path / name, attacks=("loss",), classes=list(name))
    for predict, name in ((remember, "abc"), (turned, "cba"))
  ]
  assert results[0].undefended.member_accuracy == results[1].undefended.member_accuracy


def refused(tmp_path, capsys, **changes):
  """The one line with which a command is refused; nothing is left behind."""
  given = {"predict": f"{__name__}:remember", "output": tmp_path / "out", **changes}
  flags = [f"--{name}={value}" for name, value in given.items()]
  assert main.run(["diffence", "audit", *flags]) == 2
  assert not (tmp_path / "out").exists()
  (line,) = capsys.readouterr().err.strip().split("\n")
  return line


def probabilities(images):
  logits = np.exp(classify(images))
  return logits / logits.sum(axis=1, keepdims=True)


def broken(images):
  raise KeyError("weights")


def test_what_is_refused(tmp_path, forms, capsys):
  sides = {"members": forms / "members", "nonmembers": forms / "nonmembers.npz"}
  (tmp_path / "empty").mkdir()
  colour = tmp_path / "colour"
  lacking = tmp_path / "lacking"
  for name in "ab":
    for root, shape in ((colour, (4, 4, 3)), (lacking, (4, 4))):
      (root / name).mkdir(parents=True)
      Image.fromarray(np.full(shape, 9 + ord(name), np.uint8)).save(root / name / "x.png")
  large, labels = np.zeros((9, 5, 5, 1), np.uint8), np.arange(9) % 3
  np.savez(tmp_path / "large.npz", images=large, labels=labels)
  np.savez(tmp_path / "many.npz", images=NONMEMBERS[0], labels=NONMEMBERS[1] + 1)
  (tmp_path / "no.json").write_text('{"members": [1, 2]}')
  cases = {
    "--members is missing": {},
    "--nonmembers is missing": {"members": forms / "members"},
    "no images in": {**sides, "members": tmp_path / "empty"},
    "no folder, an|There is no file": {**sides, "members": tmp_path / "nowhere"},
    "Members are 4x4 in 3 channels": {**sides, "members": colour},
    "non-members are 5x5|5x5 in gray": {**sides, "nonmembers": tmp_path / "large.npz"},
    "labels range from 1 to 3": {**sides, "nonmembers": tmp_path / "many.npz"},
    "images are on both sides": {**sides, "nonmembers": forms / "members.npz"},
    "'c' is on one side only": {**sides, "nonmembers": lacking},
    "There are 2 classes": {**sides, "members": lacking},
    "names members by ids": {**sides, "members": tmp_path / "no.json"},
    "'c', which is none of": {**sides, "classes": "a,b,d"},
    "look like probabilities": {**sides, "predict": f"{__name__}:probabilities"},
    "KeyError: 'weights'": {**sides, "predict": f"{__name__}:broken"},
    "cannot be imported": {**sides, "predict": "nowhere:f"},
    "There is no classifier": {**sides, "predict": "nothing"},
    "is no exported predictor": {**sides, "predict": forms / "index.json"},
  }  # fmt: skip
  for expected, given in cases.items():
    line = refused(tmp_path, capsys, **given)
    assert any(part in line for part in expected.split("|")), (expected, line)


def test_floats_are_attacked_as_the_bytes_that_they_stand_for(tmp_path):
  floats = [
    (images.astype(np.float32) / 255, labels) for images, labels in (MEMBERS, NONMEMBERS)
  ]
  found = []
  for n, sides in enumerate(((MEMBERS, NONMEMBERS), floats)):
    attacks = ("loss", "quantile_regression")
    results = dj.audit_model(remember, *sides, tmp_path / str(n), attacks=attacks)
    found.append({a.name: a.auc.value for a in results.undefended.attacks})
  assert "quantile_regression" in found[0]
  assert found[0] == pytest.approx(found[1], abs=1e-6)
