"""Asks a service of serve.py again and again, and prints how long the answers took.

    python examples/load_test.py http://127.0.0.1:8000 --requests=10000 --clients=16

Exits with 1 where an answer was none.
"""

import argparse
import http.client
import json
import threading
import time
import urllib.parse

import numpy as np


def ask(address, bodies, seconds, failures):
  """One client: a connection, one request after another."""
  connection = http.client.HTTPConnection(address, timeout=120)
  for body in bodies:
    start = time.perf_counter()
    try:
      connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
      response = connection.getresponse()
      answer = response.read()
      if response.status != 200 or not json.loads(answer)["labels"]:
        failures.append(f"{response.status} {answer[:100]!r}")
    except (OSError, http.client.HTTPException, ValueError) as error:
      failures.append(repr(error))
      connection.close()
    seconds.append(time.perf_counter() - start)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
  parser.add_argument("url")
  parser.add_argument("--requests", type=int, default=1000)
  parser.add_argument("--clients", type=int, default=16)
  parser.add_argument("--shape", default="8,8,1", help="of an image: height, width, channels")
  options = parser.parse_args()
  shape = [int(size) for size in options.shape.split(",")]
  draw = np.random.default_rng(0)
  bodies = [
    json.dumps({"images": draw.random((1, *shape)).round(3).tolist()}) for _ in range(64)
  ]
  share = [
    [bodies[i % len(bodies)] for i in range(first, options.requests, options.clients)]
    for first in range(options.clients)
  ]
  seconds, failures = [], []
  address = urllib.parse.urlsplit(options.url).netloc
  clients = [threading.Thread(target=ask, args=(address, s, seconds, failures)) for s in share]
  start = time.perf_counter()
  for client in clients:
    client.start()
  for client in clients:
    client.join()
  whole = time.perf_counter() - start
  p50, p99 = 1000 * np.percentile(seconds, [50, 99])
  print(
    f"{len(seconds)} requests of one image, {options.clients} at a time, {len(failures)} "
    f"errors: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(seconds) / whole:.1f} images a second"
  )
  for failure in failures[:5]:
    print(failure)
  return 1 if failures else 0


if __name__ == "__main__":
  raise SystemExit(main())
