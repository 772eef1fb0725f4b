"""The command `diffence protect`: a classifier and a diffusion model in, a program out."""

from collections.abc import Sequence
from pathlib import Path

from diffence_jax.cli.parsing import Arguments, asks_for_help, parse_settings
from diffence_jax.cli.terminal import say

_USAGE = """\
diffence protect --classifier=CLASSIFIER --diffusion=FOLDER --output=PATH
                 [--members=PATH] [--nonmembers=PATH] [--policy=NAME] [...]"""
_DESCRIPTION = """\
Protects a classifier with Diffence, and writes both as one program, which JAX runs by itself.
Of a classifier that JAX cannot trace, all but the classifier is written, as a folder.

  --classifier=NAME   an exported program, a file; the folder of a saved model; module:function
                      of (key, images) that JAX can trace; or module:function of NumPy images
                      to logits, in any framework
  --diffusion=FOLDER  a saved diffusion model, of diffence train-diffusion or import-torch
  --members=PATH      known images that the classifier was trained on, and
  --nonmembers=PATH   known ones that it was not trained on: folders, .npz or index files, as
                      diffence audit takes them; at least one of both, to fit the policy on and
                      to look whether labels stay
  --policy=NAME       what is answered: scenario_3 unless it is given (nothing is known);
                      scenario_2 (some members), scenario_1 (both), blend (some non-members;
                      we recommend it), or any other of experiments
  --set OPTION=VALUE  options of the policy, such as weight=0.4 of blend
  --num_candidates=30 --step=160
                      re-generations of an image, and the steps of noise that they begin at
  --chunk_size=N      re-generations at a time, where the program is to run on another machine
  --classes=NAME,...  the classifier's classes in the order of its outputs; the sorted names of
                      the subfolders if it is left out
  --image_size=N      the side that image files are scaled to
  --output=PATH       the program, a file, replaced if it is there; diffence export --help says
                      how to run it. For a function of NumPy images a new folder, a bundle:
                      dj.load_protected(folder, function) is the protected classifier
  --help              this text
"""


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    ValueError: the arguments, a model or the images are not right.
    OSError: a file is missing, or the output cannot be written.
  """
  if asks_for_help(argv):
    print(f"{_USAGE}\n\n{_DESCRIPTION}", end="")
    return
  parser = Arguments("diffence protect")
  for name in ("classifier", "diffusion", "output"):
    parser.add_argument(f"--{name}", required=True)
  for name in ("members", "nonmembers", "classes"):
    parser.add_argument(f"--{name}")
  parser.add_argument("--policy", default="scenario_3")
  parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="OPTION=VALUE")
  for name, default in (
    ("num_candidates", 30), ("step", 160), ("seed", 0),
    ("chunk_size", None), ("image_size", None),
  ):  # fmt: skip
    parser.add_argument(f"--{name}", type=int, default=default)
  given = parser.parse_args(argv[1:])
  options, output = parse_settings(given.set), Path(given.output).expanduser()
  # After parsing: importing jax takes a second that a misspelt flag need not wait for.
  from diffence_jax.data.sides import read_side
  from diffence_jax.disk import check_free
  from diffence_jax.interop import export
  from diffence_jax.interop.bundle import save_bundle
  from diffence_jax.interop.classifier import load_classifier
  from diffence_jax.interop.export import check_folder_of
  from diffence_jax.interop.protection import fit_protection, shape_of
  from diffence_jax.predictor import runs_on_host

  check_folder_of(output)  # before anything is fitted
  sides = [
    None if path is None else read_side(path, group, given.image_size)
    for group, path in (("members", given.members), ("nonmembers", given.nonmembers))
  ]
  shape = shape_of(*sides)
  classifier = load_classifier(given.classifier, shape)
  on_host = runs_on_host(classifier.predict)
  if on_host:
    check_free(output)
  names = ("policy", "num_candidates", "step", "chunk_size", "seed")
  settings = {name: getattr(given, name) for name in names}
  settings["classes"] = given.classes.split(",") if given.classes else None
  done = fit_protection(classifier, given.diffusion, *sides, options=options, **settings)
  if on_host:
    about = {"num_classes": classifier.num_classes, "image_shape": shape}
    save_bundle(output, done.policy, given.diffusion, **about, settings=settings)
  else:
    platforms = {} if classifier.platforms is None else {"platforms": classifier.platforms}
    export(output, done.protected, shape, **platforms)
  for line in _about(done, given.policy, output, shape):
    say(line)


def _about(done, policy, output, shape):
  """What was written, for people."""
  fitted = done.policy.interval
  interval = "" if fitted is None else f", phi in [{fitted[0]:.3f}, {fitted[1]:.3f}]"
  changed = f"{done.label_changes} labels of" if done.label_changes else "no label of"
  axes = ",".join(map(str, shape))
  if output.is_dir():
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    how = f"for dj.load_protected(folder, function), of images [N,{axes}]"
  else:
    size, how = output.stat().st_size, f"for (key data u32[2], images f32[N,{axes}])"
  return (
    f"{output}: {size / 2**20:.1f} MiB, {policy}{interval}, {how}.",
    f"It changed {changed} {done.num_checked} known images; an answer takes "
    f"{1000 * done.seconds:.3g} ms an image here, {done.num_checked} at a time.",
  )
