"""Flags and config files that are not right: named in our words, in one line."""

from pathlib import Path

import pytest

from diffence_jax.cli.parsing import parse, shipped_configs

CONFIGS = Path(__file__).parents[2] / "configs"
SMOKE = f"--config={CONFIGS / 'digits.py'}:smoke"


def refused(*arguments):
  """The one line that these arguments are refused with."""
  with pytest.raises(ValueError) as error:
    parse(["diffence", *map(str, arguments)], lambda values: None, ("config", "workdir"))
  message = str(error.value)
  assert "\n" not in message
  return message


@pytest.mark.parametrize(
  "setting, message",
  [
    ("attacks.nn.epochs=2.5", "--config.attacks.nn.epochs is '2.5'; expected a whole number."),
    ("purify.step=", "--config.purify.step is ''; expected a whole number."),
    ("classifier.learning_rate=1,5", "is '1,5'; expected a number."),
    ("classifier.learning_rate=a: b", "is 'a: b'; expected a number."),
    ("purify.clip=yes", "is 'yes'; expected True or False."),
    ("audit.attacks=('nn',", "expected a tuple, such as"),
    ("audit.attacks[0]=nn", "--config.audit.attacks[0] names no setting"),
    ("=3", "--config. names no setting"),
    ("data=5", "expected a section of settings; set one of its own"),
    ("data.options=x", "as --config.data.options.SETTING=VALUE"),
    ("purify.interval=(1, 2)", "no setting --config.purify.interval"),
  ],
)
def test_a_value_of_another_kind_is_named_with_its_setting(tmp_path, setting, message):
  assert message in refused(SMOKE, f"--workdir={tmp_path}", f"--config.{setting}")


@pytest.mark.parametrize(
  "program, message",
  [
    ("def get_config(:\n", "SyntaxError: invalid syntax"),
    ("import nosuchmodule\n", "line 1 cannot be used: ModuleNotFoundError"),
    ("def get_config():\n  raise KeyError('x')\n", "line 2 cannot be used: KeyError: 'x'"),
    ("def get_config():\n  raise ValueError('one\\ntwo')\n", "cannot be used: one two."),
    ("def get_config():\n  raise SystemExit(3)\n", "ends the program, with the exit code 3"),
    ("def get_config():\n  return get_config()\n", "RecursionError"),
    (
      "def get_config():\n  return None\n",
      "returns a NoneType; expected a ConfigDict, such as diffence_jax.experiment",
    ),
    (
      "def get_config():\n  return {'seed': 1}\n",
      "returns a dict; expected a ConfigDict, such as diffence_jax.experiment",
    ),
  ],
)
def test_what_a_config_file_raises_is_said_with_its_name(tmp_path, program, message):
  file = tmp_path / "own.py"
  file.write_text(program)
  said = refused(f"--config={file}", f"--workdir={tmp_path / 'runs'}")
  assert said.startswith(f"The config file {file}") and message in said
  assert not (tmp_path / "runs").exists()


def test_paths_that_are_of_another_kind_are_named(tmp_path):
  file, loop = tmp_path / "file", tmp_path / "loop"
  file.write_text("")
  loop.symlink_to(loop)
  for workdir in (file, loop, "/dev/null", "a\0b"):
    assert "which is no folder" in refused(SMOKE, f"--workdir={workdir}")
  for config, what in ((tmp_path, "is no file"), (tmp_path / "none.py", "is not there")):
    said = refused(f"--config={config}", f"--workdir={tmp_path}")
    assert f"{config} {what}; expected --config=FILE[:VARIANT]" in said


def test_our_configs_are_there_by_their_names(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  arguments = ["diffence", "--config=digits:smoke", "--workdir=runs"]
  values = parse(arguments, lambda values: None, ("config", "workdir"))
  assert (values.config.name, values.config.variant) == ("digits", "smoke")
  assert set(shipped_configs()) == {file.stem for file in CONFIGS.glob("*.py")}
  message = "There is no config 'digit'; did you mean 'digits'? A file of your own"
  assert message in refused("--config=digit:smoke", "--workdir=runs")
  # A file of this name is meant rather than ours.
  (tmp_path / "digits").write_text("raise KeyError('mine')")
  assert "The config file digits, line 1" in refused("--config=digits", "--workdir=runs")


def test_a_file_of_flags_that_cannot_be_read_is_named(tmp_path):
  said = refused(SMOKE, f"--workdir={tmp_path}", f"--flagfile={tmp_path / 'none'}")
  assert said.startswith("--flagfile cannot be read: ") and str(tmp_path / "none") in said


def test_a_config_file_has_nothing_of_the_one_read_before(tmp_path):
  file = tmp_path / "empty.py"
  file.write_text("")
  parse(["diffence", SMOKE, f"--workdir={tmp_path}"], lambda values: None, ())
  said = refused(f"--config={file}", f"--workdir={tmp_path}")
  assert said == f"The config file {file} cannot be used: it has no function get_config."
