"""Pages as PDF: what the browser is given, and what happens where there is none or it fails."""

import stat

import pytest

from diffence_jax.cli.main import run as command
from diffence_jax.report import pdf

_PRINTS = """#!/bin/sh
for argument; do
  case "$argument" in
    --print-to-pdf=*) printed="${argument#--print-to-pdf=}" ;;
    file://*) page="${argument#file://}" ;;
  esac
done
cp "$page" "$printed"
"""
_FAILS = "#!/bin/sh\necho first >&2\necho 'no display' >&2\nexit 3\n"


@pytest.fixture
def browser(tmp_path, monkeypatch):
  """A function that puts a program in the place of every browser; None for no browser."""
  monkeypatch.setenv("TMPDIR", str(tmp_path))

  def install(script):
    path = tmp_path / "a-browser"
    if script is not None:
      path.write_text(script)
      path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(pdf, "BROWSERS", (str(path),))

  return install


def test_the_browser_prints_a_page_with_all_open(tmp_path, browser):
  browser(_PRINTS)
  page, printed = tmp_path / "a page.html", tmp_path / "page.pdf"
  page.write_text("<details>closed</details>")
  pdf.write_pdf(page, printed)
  # This browser copies what it is to print.
  assert printed.read_text() == "<details open>closed</details>"
  assert page.read_text() == "<details>closed</details>"


def test_a_browser_that_fails_leaves_the_old_file_and_says_why(tmp_path, browser):
  browser(_FAILS)
  page, printed = tmp_path / "page.html", tmp_path / "page.pdf"
  page.write_text("<p>new</p>")
  printed.write_text("old")
  with pytest.raises(RuntimeError, match="the code 3 and said: no display"):
    pdf.write_pdf(page, printed)
  assert printed.read_text() == "old"


@pytest.mark.parametrize(
  "arguments",
  [
    ["--config=digits:smoke", "--workdir={}/new"],
    ["audit", "{}/record.npz", "--output={}/new"],
    ["compare", "{}/run", "--output={}/new"],
  ],
)
def test_without_a_browser_nothing_is_begun(tmp_path, browser, capsys, arguments):
  browser(None)
  arguments = [argument.replace("{}", str(tmp_path)) for argument in arguments]
  assert command(["diffence", *arguments, "--pdf"]) == 2
  error = capsys.readouterr().err
  assert "--pdf needs a Chromium" in error and error.count("\n") == 1
  assert not (tmp_path / "new").exists()


def test_pdf_needs_a_place(capsys):
  assert command(["diffence", "compare", "somewhere", "--pdf"]) == 2
  assert "--pdf needs --output=FOLDER" in capsys.readouterr().err
