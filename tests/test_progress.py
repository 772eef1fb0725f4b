"""Progress where no terminal is: a line a minute, with what is done and the time left."""

import pytest

from diffence_jax import progress


@pytest.fixture
def clock(monkeypatch):
  """The seconds that `time.monotonic` gives."""
  now = [1000.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  return now


def test_a_line_a_minute_with_the_time_left(clock, capsys):
  with progress.progress_bar(1500, "diffusion", "step", done=300) as bar:
    for _ in range(12):
      clock[0] += 20.0
      bar.update(100)
      bar.set_postfix(loss="0.1")
  captured = capsys.readouterr()
  # 5 steps a second since it went on, 20 seconds each 100; the last is no news.
  assert captured.err.splitlines() == [
    "diffusion: 600 of 1,500 steps, 40%, about 3 min left",
    "diffusion: 900 of 1,500 steps, 60%, about 2 min left",
    "diffusion: 1,200 of 1,500 steps, 80%, about 1 min left",
  ]
  assert captured.out == ""


def test_what_takes_no_minute_is_silent(clock, capsys):
  with progress.progress_bar(10, "queries", "image") as bar:
    for _ in range(10):
      clock[0] += 5.0
      bar.update()
  assert capsys.readouterr().err == ""


def test_who_waits_for_others_has_no_news(clock, capsys):
  with progress.progress_bar(10, "shadow", "part", done=2) as bar:
    for done in (0, 0, 1, 0):
      clock[0] += 70.0
      bar.update(done)
  assert capsys.readouterr().err.splitlines() == [
    "shadow: 3 of 10 parts, 30%, about 24 min left",
    "shadow: 3 of 10 parts, 30%, about 33 min left",
  ]


def test_an_error_passes_through(clock):
  with pytest.raises(ValueError, match="lost"), progress.progress_bar(1, "a", "b"):
    raise ValueError("lost")


def test_a_terminal_has_a_bar(monkeypatch):
  monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
  with progress.progress_bar(3, "queries", "image", done=1) as bar:
    assert isinstance(bar, progress.tqdm) and (bar.total, bar.n) == (3, 1)


@pytest.mark.parametrize(
  ("seconds", "text"),
  [
    (0.0, "0 s"),
    (59.4, "59 s"),
    (61.0, "1 min"),
    (3599.0, "1 h 0 min"),
    (12000.0, "3 h 20 min"),
  ],
)
def test_durations(seconds, text):
  assert progress.duration(seconds) == text
