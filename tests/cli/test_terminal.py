"""What the command says is harmless, whatever names it speaks of."""

import io

from diffence_jax.cli import main
from diffence_jax.cli.terminal import printable, say


def test_escape_codes_are_spelt_out():
  assert printable("a\x1b[2Jb\x07\x9b\r") == r"a\x1b[2Jb\x07\x9b\r"
  assert printable("evil\u202etxt.pt") == r"evil\u202etxt.pt"
  for harmless in ("two\nlines\tand a tab", "Größe ±0.1, 数"):
    assert printable(harmless) == harmless


def test_what_the_terminal_cannot_show_is_spelt_out():
  ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
  say("±1 and \udcff", ascii_only)
  ascii_only.flush()
  assert ascii_only.buffer.getvalue() == b"\\xb11 and \\udcff\n"


def test_errors_of_the_command_have_no_escape_codes(capsys):
  assert main.run(["diffence", "import-torch", "resnet18", "no\x1b[31mfile", "--output=x"]) == 2
  error = capsys.readouterr().err
  assert "\x1b" not in error and r"no\x1b[31mfile" in error
