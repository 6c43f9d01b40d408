"""What the load generator costs beside the least that one can be: a closed loop over epoll in C.

usage: cost.py DIR    where loadgen is

Both drive the same bare mio server, one after the other, each pinned to one CPU and the server to another: 64 connections,
64 bytes, one thread. Per round the ratio of what they reach and of the CPU time that a request takes; judged are the
medians of ROUNDS. Needs two CPUs and a C compiler; says so and passes where there is none.
"""

import json
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile

import instructions

SERVER_CPU, GENERATOR_CPU = "0", "1"
CONNECTIONS = "64"
ROUNDS, SECONDS = 60, 0.6
RATE_LEAST, CPU_MOST = 0.95, 1.15


def run(command):
    """What it printed, and the CPU time it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    pinned = ["taskset", "-c", GENERATOR_CPU, *map(str, command)]
    done = subprocess.run(pinned, capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def floor(program, port):
    said, _ = run([program, port, CONNECTIONS, SECONDS])
    requests, seconds, cpu = map(float, re.match(r"(\d+) requests in ([\d.]+) s, ([\d.]+) s", said).groups())
    return requests / seconds, cpu / requests


def loadgen(program, port):
    """Its start and its report count too, some milliseconds of CPU time."""
    target, load = f"tcp://127.0.0.1:{port}", [f"--connections={CONNECTIONS}", f"--duration={SECONDS}s", "--warmup=0s"]
    said, cpu = run([program, "run", target, *load, "--json", "--quiet"])
    rate = json.loads(said)["summary"]["achieved_rate"]
    return rate, cpu / (rate * SECONDS)


def compare(programs, servers, scratch):
    generate = pathlib.Path(scratch, "generate")
    subprocess.run(["cc", "-O2", "-o", generate, instructions.VERSUS / "peers/generator/generate.c"], check=True)
    server = ["taskset", "-c", SERVER_CPU, servers / "serve_mio"]
    server = subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    rates, cpus = [], []
    try:
        port = server.stdout.readline().rsplit(":", 1)[1].strip()
        for nth in range(ROUNDS):
            order = [lambda: floor(generate, port), lambda: loadgen(programs / "loadgen", port)]
            turned = nth % 2
            results = [order[turned](), order[1 - turned]()]
            (floor_rate, floor_cpu), (rate, cpu) = results[turned], results[1 - turned]
            rates.append(rate / floor_rate)
            cpus.append(cpu / floor_cpu)
    finally:
        # The end of its standard input ends the server.
        server.communicate(timeout=60)
    return rates, cpus


def spread(ratios):
    return f"{statistics.median(ratios):.3f} [{min(ratios):.2f}-{max(ratios):.2f}]"


def main():
    if len(os.sched_getaffinity(0)) < 2 or shutil.which("cc") is None:
        print("SKIPPED: what loadgen costs is measured with two CPUs and a C compiler")
        return
    servers = instructions.build(["serve_mio"])
    with tempfile.TemporaryDirectory() as scratch:
        rates, cpus = compare(pathlib.Path(sys.argv[1]), servers, scratch)
    print(f"loadgen / a loop in C, {ROUNDS} rounds: rate {spread(rates)}, CPU per request {spread(cpus)}")
    if statistics.median(rates) < RATE_LEAST or statistics.median(cpus) > CPU_MOST:
        sys.exit(f"wanted: a rate of at least {RATE_LEAST}, CPU per request at most {CPU_MOST}")


if __name__ == "__main__":
    main()
