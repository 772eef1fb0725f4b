"""Serves a protected classifier over HTTP, from one exported program.

    diffence export --config=digits --workdir=runs/digits --output=protected.stablehlo
    python examples/serve.py protected.stablehlo --port=8000

    POST /predict   {"images": [N,H,W,C] of floats in [0, 1]}
                    -> {"labels": [N], "logits": [N,K]}; 400 with the reason
    GET  /healthz   200 "ok"; 503 "draining" once it has been told to stop
    GET  /metrics   counts, in the text format of Prometheus

Waiting requests are answered together. A program compiles anew for every size of a batch, for
4 to 7 seconds, so batches are filled up to one of a few sizes, all compiled before the first
request. Every call has a fresh key from the system's randomness. All candidates are always
drawn: how long an answer takes tells how many images were asked about beside it, and nothing of
the images. SIGTERM answers what has been asked, and ends.

It needs jax, flatbuffers and NumPy, and not diffence_jax.
"""

import argparse
import collections
import http.server
import json
import multiprocessing
import os
import queue
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np

_LARGEST_BODY = 64 * 2**20
# Seconds for which it goes on taking requests once it has been told to stop.
_GRACE = 1.0


class Refused(Exception):
  """What was asked for is not right: (HTTP status, the reason)."""


def refuse(reason):
  """Ends the program, as it was given something that is not right."""
  print(f"serve.py: error: {reason}", file=sys.stderr)
  raise SystemExit(2)


class Program:
  """An exported program, compiled for a few sizes of a batch."""

  def __init__(self, path, sizes):
    # Only in the process that answers.
    import jax
    from jax import export

    try:
      exported = export.deserialize(bytearray(Path(path).read_bytes()))
      _, images = exported.in_avals
    except Exception as error:  # whatever reading other files' bytes raises
      refuse(f"{path} is no exported predictor ({error}); see diffence export --help.")
    self._call, self.image_shape = jax.jit(exported.call), images.shape[1:]
    self.sizes = sorted(sizes)
    for size in self.sizes:
      self(np.zeros((size, *self.image_shape), np.float32))

  def __call__(self, images):
    """Logits of images f32[N,H,W,C], N at most the largest size."""
    size = next(size for size in self.sizes if size >= len(images))
    filled = np.zeros((size, *self.image_shape), np.float32)
    filled[: len(images)] = images
    key = np.frombuffer(os.urandom(8), np.uint32)
    return np.asarray(self._call(key, filled), np.float32)[: len(images)]


class Batcher(threading.Thread):
  """Answers waiting requests together; the one thread that calls the program."""

  def __init__(self, program, wait, state):
    super().__init__(daemon=True)
    self._program, self._wait, self._state = program, wait, state
    self._waiting = queue.Queue()

  def answer(self, images):
    """Blocks until there is an answer: logits f32[N,K]."""
    answer = queue.Queue(1)
    self._waiting.put((images, answer))
    logits = answer.get()
    if isinstance(logits, Exception):
      raise logits
    return logits

  def run(self):
    left = None  # What did not fit into the batch before.
    while True:
      batch = [left or self._waiting.get()]
      left, deadline = None, time.monotonic() + self._wait
      while left is None:
        try:
          given = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
          break
        if sum(len(images) for images, _ in (*batch, given)) > self._program.sizes[-1]:
          left = given
        else:
          batch.append(given)
      self._answer(batch)

  def _answer(self, batch):
    images = np.concatenate([images for images, _ in batch])
    self._state.count(batches=1, images=len(images))
    try:
      logits = self._program(images)
      if not np.isfinite(logits).all():
        raise FloatingPointError("The program gave NaN or inf.")
      parts = np.split(logits, np.cumsum([len(images) for images, _ in batch])[:-1])
    except Exception as error:  # whatever it is, nobody may be left waiting
      parts = [error] * len(batch)
    for (_, answer), part in zip(batch, parts, strict=True):
      answer.put(part)


def read_images(body, image_shape, most):
  """The images of a request; Refused where they are not right."""
  try:
    given = json.loads(body)
    images = np.asarray(given["images"], np.float32)
  except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
    shape = "x".join(map(str, image_shape))
    raise Refused(400, f'Expected {{"images": [N images, {shape}]}} in JSON.') from error
  if images.ndim != 4 or images.shape[1:] != image_shape:
    raise Refused(400, f"images have the shape {images.shape}; expected (N, *{image_shape}).")
  if not 1 <= len(images) <= most:
    raise Refused(400, f"There are {len(images)} images; expected 1 to {most}.")
  if not (np.isfinite(images).all() and images.min() >= 0.0 and images.max() <= 1.0):
    raise Refused(400, "Images are not all in [0, 1]; divide 8-bit ones by 255.")
  return images


def make_handler(program, batcher, state):
  """The class whose objects answer one connection each."""

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # Or the body waits 40 ms for the headers.
    timeout = 60  # of a connection that says nothing

    def do_GET(self):
      if self.path == "/healthz":
        self._reply(*((503, "draining") if state.is_draining else (200, "ok")))
      elif self.path == "/metrics":
        counts = state.counts()
        self._reply(200, "".join(f"diffence_{name} {count}\n" for name, count in counts))
      else:
        self._reply(404, "Expected /predict, /healthz or /metrics.")

    def do_POST(self):
      with state:
        try:
          if self.path != "/predict":
            raise Refused(404, "Expected POST /predict.")
          images = read_images(self._body(), program.image_shape, program.sizes[-1])
          logits = batcher.answer(images)
          answer = {"labels": logits.argmax(axis=1).tolist(), "logits": logits.tolist()}
          self._reply(200, json.dumps(answer), "application/json")
        except Refused as refused:
          self._reply(*refused.args)
        except FloatingPointError as error:
          self._reply(500, str(error))

    def _body(self):
      length = self.headers.get("Content-Length", "")
      if not (length.isascii() and length.isdigit()):
        self.close_connection = True
        raise Refused(411, "Expected a Content-Length.")
      if int(length) > _LARGEST_BODY:
        self.close_connection = True  # its body is not read
        raise Refused(413, f"The request has {length} bytes; expected {_LARGEST_BODY} at most.")
      return self.rfile.read(int(length))

    def _reply(self, status, text, kind="text/plain"):
      state.count(**{f'requests{{status="{status}"}}': 1})
      body = text.encode()
      self.send_response(status)
      self.send_header("Content-Type", f"{kind}; charset=utf-8")
      self.send_header("Content-Length", str(len(body)))
      if state.is_draining or self.close_connection:
        self.send_header("Connection", "close")
      self.end_headers()
      self.wfile.write(body)

    def log_message(self, *args):
      """Nothing: who asks what is not written down."""

  return Handler


class State:
  """What the threads of a process share; within it, a request is in hand."""

  def __init__(self):
    self.is_draining = False
    self._counts, self._in_hand = collections.Counter(), 0
    self._changed = threading.Condition()

  def count(self, **more):
    """Adds to what `/metrics` tells."""
    with self._changed:
      self._counts.update(more)

  def counts(self):
    """Pairs of a name and a count, sorted."""
    with self._changed:
      return sorted(self._counts.items())

  def __enter__(self):
    with self._changed:
      self._in_hand += 1

  def __exit__(self, *error):
    with self._changed:
      self._in_hand -= 1
      self._changed.notify_all()

  def drain(self):
    """Blocks until all that was asked is answered."""
    with self._changed:
      self._changed.wait_for(lambda: not self._in_hand, timeout=60)


class Server(http.server.ThreadingHTTPServer):
  """A server whose port several processes may share."""

  daemon_threads, request_queue_size = True, 128

  def server_bind(self):
    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    super().server_bind()

  def handle_error(self, request, client_address):
    """Nothing: a client went away, or what it sent was no HTTP."""


def serve(options):
  """One process: answers until it is told to stop."""
  state, program = State(), Program(options.program, options.sizes)
  batcher = Batcher(program, options.wait_ms / 1000, state)
  batcher.start()
  try:
    server = Server((options.host, options.port), make_handler(program, batcher, state))
  except (OSError, OverflowError) as error:
    refuse(f"There is no serving at {options.host}, port {options.port}: {error}.")
  with server:

    def stop(*_):
      state.is_draining = True
      # Meanwhile requests that are under way come in, and balancers learn of it from /healthz.
      threading.Timer(_GRACE, server.shutdown).start()

    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, stop)
    print(f"http://{options.host}:{server.server_port}/predict", file=sys.stderr, flush=True)
    server.serve_forever(poll_interval=0.05)
    state.drain()


def main():
  text, about = __doc__.split("\n", 1)[0], argparse.RawDescriptionHelpFormatter
  parser = argparse.ArgumentParser(description=text, epilog=__doc__, formatter_class=about)
  parser.add_argument("program", type=Path)
  parser.add_argument("--host", default="127.0.0.1")
  parser.add_argument("--port", type=int, default=8000)
  parser.add_argument("--wait_ms", type=float, default=5.0, help="for others to join a batch")
  sizes = lambda given: [int(size) for size in given.split(",")]
  parser.add_argument("--sizes", type=sizes, default=[1, 8, 32], help="of batches: 1,8,32")
  parser.add_argument("--workers", type=int, default=1, help="processes that share the port")
  options = parser.parse_args()
  if not options.program.is_file():
    parser.error(f"There is no file {options.program}; see diffence export --help.")
  if min(options.sizes) < 1 or options.workers < 1:
    parser.error("--sizes and --workers are whole numbers from 1 on.")
  if options.workers == 1:
    return serve(options)
  start = multiprocessing.get_context("spawn").Process
  workers = [start(target=serve, args=(options,)) for _ in range(options.workers)]
  for worker in workers:
    worker.start()
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: [worker.terminate() for worker in workers])
  for worker in workers:
    worker.join()
  return max(abs(worker.exitcode) for worker in workers)


if __name__ == "__main__":
  sys.exit(main())
