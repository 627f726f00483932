# SPDX-License-Identifier: Apache-2.0
"""What a file in a call costs, by both ways that it can take.

`make bench-descriptors` compares three servers, one after the other in each round: calls without a
file, calls with one that is put into the server by ptrace, and calls with one that comes through
the socket of a server with the preload library. Client and server are C programs that know only
the driver's ABI (tests/descriptors/files.c); all processes share one core. The server checks each
file and closes it. The figures are the medians over the rounds, microseconds a call.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "descriptors" / "files.c"
PRELOAD = ROOT / "client" / "binderclient" / "libbinderd-preload.so"
CORE = {0}
FILES = (0, 1, 10)
NUMBER_MAX = 1_000_000


def started(stack: ExitStack, *command: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )
    stack.callback(process.wait)
    stack.callback(process.send_signal, signal.SIGTERM)
    return process


def count(text: str) -> int:
    """A whole number from 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= NUMBER_MAX:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {NUMBER_MAX}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=count, default=5, help="(%(default)s)")
    parser.add_argument(
        "--calls", type=count, default=500, help="in each measurement (%(default)s)"
    )
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench-descriptors: needs root, to mount: run it with sudo")
    if not PRELOAD.exists():
        sys.exit("bench-descriptors: there is no preload library: run 'make preload' first")
    os.sched_setaffinity(0, CORE)
    samples: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        program = Path(place, "files")
        subprocess.run(["cc", "-O2", "-pthread", "-o", program, SOURCE], check=True)
        mount = Path(place, "mount")
        command = [sys.executable, "-m", "binderd", "--mount", str(mount), "--log-level", "error"]
        daemon = started(stack, *command, "--device=plain", "--device=socket", environment={})
        while not (mount / "features").is_dir():
            if daemon.poll() is not None:
                sys.exit(f"bench-descriptors: binderd ended with status {daemon.returncode}")
            signal.sigtimedwait([], 0.05)
        for name, environment in (("plain", {}), ("socket", {"LD_PRELOAD": str(PRELOAD)})):
            server = started(
                stack, str(program), "serve", str(mount / name), environment=environment
            )
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
        for _ in range(chosen.rounds):
            for files in FILES:
                for name in ("plain", "socket"):
                    words = [program, "call", mount / name, str(chosen.calls), str(files)]
                    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
                    samples.setdefault((name, files), []).append(float(said))
    print("| files | ptrace µs | socket µs | ptrace / none | socket / none |")
    print("|--:|--:|--:|--:|--:|")
    median = {key: statistics.median(values) for key, values in samples.items()}
    for files in FILES:
        plain, socket = median["plain", files], median["socket", files]
        ratios = f"{plain / median['plain', 0]:.1f} | {socket / median['socket', 0]:.1f}"
        print(f"| {files} | {plain:.1f} | {socket:.1f} | {ratios} |")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
