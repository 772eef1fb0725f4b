"""The service of the examples: it answers as the program does, refuses, and drains."""

import concurrent.futures
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.parse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import diffence_jax as dj

EXAMPLES = Path(__file__).parents[2] / "examples"
WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) - 5.0


@pytest.fixture(scope="module")
def service(tmp_path_factory):
  """The running process, and its host and port."""
  program = tmp_path_factory.mktemp("program") / "linear.stablehlo"
  predict = lambda key, images: images.reshape(images.shape[0], -1) @ jnp.asarray(WEIGHTS)
  dj.interop.export(program, predict, (2, 2, 1), platforms=("cpu",))
  command = [sys.executable, EXAMPLES / "serve.py", program, "--port=0", "--sizes=1,4"]
  process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
  line = process.stderr.readline()
  assert line.startswith("http://127.0.0.1:"), line + process.stderr.read()
  yield process, urllib.parse.urlsplit(line.strip()).netloc
  process.kill()


def ask(address, path, body=None, method="POST", **headers):
  connection = http.client.HTTPConnection(address, timeout=60)
  connection.request(method, path, body, headers)
  response = connection.getresponse()
  return response.status, response.read().decode()


def test_it_answers_as_the_program_does_however_requests_are_put_together(service):
  images = np.random.default_rng(0).random((40, 2, 2, 1)).astype(np.float32)
  groups = np.split(images, np.cumsum([1, 2, 3, 4] * 4)[:-1])

  def answer(group):
    status, text = ask(service[1], "/predict", json.dumps({"images": group.tolist()}))
    assert status == 200, text
    return json.loads(text)

  with concurrent.futures.ThreadPoolExecutor(8) as clients:
    answers = list(clients.map(answer, groups))
  logits = images.reshape(40, 4) @ WEIGHTS
  np.testing.assert_allclose(np.concatenate([a["logits"] for a in answers]), logits, rtol=1e-5)
  labels = np.concatenate([a["labels"] for a in answers])
  np.testing.assert_array_equal(labels, logits.argmax(axis=1))
  counts = dict(
    line.split() for line in ask(service[1], "/metrics", method="GET")[1].splitlines()
  )
  assert int(counts["diffence_images"]) == 40 and 10 <= int(counts["diffence_batches"]) <= 16
  assert int(counts['diffence_requests{status="200"}']) >= 16


@pytest.mark.parametrize(
  ("body", "reason"),
  [
    ("", "in JSON"),
    ("[" * 100_000, "in JSON"),
    ('{"images": "cat"}', "in JSON"),
    ('{"pictures": []}', "in JSON"),
    ('{"images": [[[[1], [0.5]], [[0.5]]]]}', "in JSON"),
    (json.dumps({"images": np.zeros((1, 3, 3, 1)).tolist()}), "expected (N, *(2, 2, 1))"),
    (json.dumps({"images": []}), "expected (N"),
    (json.dumps({"images": np.zeros((5, 2, 2, 1)).tolist()}), "5 images; expected 1 to 4"),
    (json.dumps({"images": np.full((1, 2, 2, 1), 255.0).tolist()}), "by 255"),
    ('{"images": [[[[NaN], [0]], [[0], [0]]]]}', "[0, 1]"),
  ],
)
def test_what_is_not_right_is_refused_with_the_reason(service, body, reason):
  status, text = ask(service[1], "/predict", body)
  assert status == 400 and reason in text


def test_what_is_no_request_for_it_is_refused(service):
  assert ask(service[1], "/elsewhere", "{}")[0] == 404
  assert ask(service[1], "/predict", method="GET")[0] == 404
  assert ask(service[1], "/predict", "{}", **{"Content-Length": "-1"})[0] == 411
  assert ask(service[1], "/predict", "{}", **{"Content-Length": str(2**40)})[0] == 413


def test_no_nonsense_ends_it(service):
  """DIFFENCE_NONSENSE sets how much."""
  draw = np.random.default_rng(1)
  host, port = service[1].split(":")
  for _ in range(int(os.environ.get("DIFFENCE_NONSENSE", "50"))):
    with socket.create_connection((host, int(port)), timeout=60) as client:
      start = draw.choice([b"", b"POST /predict HTTP/1.1\r\n", b"GET / HTTP/9\r\n\r\n"])
      client.sendall(start + draw.bytes(draw.integers(1, 500)))
  assert ask(service[1], "/healthz", method="GET") == (200, "ok")
  assert service[0].poll() is None


def test_what_is_no_program_or_no_port_is_refused_in_a_line(service, tmp_path):
  (tmp_path / "junk").write_text("junk")
  for arguments, reason in (
    ([tmp_path / "nowhere"], "There is no file"),
    ([tmp_path / "junk"], "is no exported predictor"),
    ([service[0].args[2], "--sizes=1", "--port=99999"], "There is no serving at"),
  ):
    command = [sys.executable, EXAMPLES / "serve.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert reason in done.stderr.splitlines()[-1]


def test_told_to_stop_it_answers_first(service):
  process, address = service
  body = json.dumps({"images": np.zeros((1, 2, 2, 1)).tolist()})
  with concurrent.futures.ThreadPoolExecutor(4) as clients:
    process.send_signal(signal.SIGTERM)
    waiting = [clients.submit(ask, address, "/predict", body) for _ in range(4)]
    assert all(each.result()[0] == 200 for each in waiting)
    assert ask(address, "/healthz", method="GET") == (503, "draining")
  assert process.wait(30) == 0
