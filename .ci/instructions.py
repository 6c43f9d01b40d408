"""Counts the instructions of user code that an echo request costs, and fails where they have become more.

usage: instructions.py

Time jitters on every machine, instructions hardly: callgrind counts those of two runs of a server of benches/versus that
differ only in the number of requests. The server is stopped while the requests of a round are sent, so that each round
finds all of them at once. What is pinned is a server on one loop with 64 connections and 64 bytes a request; who makes
one of these better writes the new figure down here. Needs valgrind; says so and passes where there is none.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

VERSUS = pathlib.Path("benches/versus")
CONNECTIONS = 64
SIZE = 64
FEW, MANY = 20, 120
WAIT_S = 60
# The compiler and the size of the batches move a figure by a few instructions. A turn of tasks has a budget of time, and
# callgrind is slow: on a busy machine its batches are smaller, and each request has a larger share of a turn.
# And steps are long there, so that each request is answered when it is received; in cohorts (src/scheduler/cohort.rs), which save
# time and not instructions, callbacks take 324 and tasks 1,050.
TOLERANCE = 1.10
PINNED = {
    ("serve_mio",): 225,
    ("serve_garland", "callback"): 250,
    ("serve_garland", "task"): 713,
    ("serve_garland", "lent"): 785,
}


def build(names):
    """Servers of benches/versus; where they are then."""
    chosen = [word for name in names for word in ("--bin", name)]
    subprocess.run(["cargo", "build", "--release", "--locked", *chosen], cwd=VERSUS, check=True)
    return VERSUS / "target" / "release"


def state(pid):
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0]


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    give_up = time.monotonic() + WAIT_S
    while state(pid) != "T":
        if time.monotonic() > give_up:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(0.0002)


def echo_round(clients, request):
    for client in clients:
        client.sendall(request)
    yield
    for client in clients:
        got = b""
        while len(got) < len(request):
            piece = client.recv(len(request) - len(got))
            if not piece:
                raise ConnectionError("the server has closed a connection")
            got += piece
        if got != request:
            raise ValueError("the server answers something else")


def drive(port, pid, rounds):
    request = bytes(range(SIZE))
    clients = [socket.create_connection(("127.0.0.1", port), WAIT_S) for _ in range(CONNECTIONS)]
    for _ in echo_round(clients, request):
        pass
    for _ in range(rounds):
        stop(pid)
        for _ in echo_round(clients, request):
            os.kill(pid, signal.SIGCONT)
    for client in clients:
        client.close()


def instructions(command, rounds):
    """All that the server executed, for so many rounds."""
    with tempfile.TemporaryDirectory() as scratch:
        out = f"--callgrind-out-file={scratch}/callgrind.out"
        tool = ["valgrind", "--tool=callgrind", out, *command]
        server = subprocess.Popen(tool, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            port = int(server.stdout.readline().rsplit(":", 1)[1])
            drive(port, server.pid, rounds)
            # The end of its standard input ends the server.
            _, said = server.communicate(timeout=WAIT_S)
        finally:
            server.kill()
            server.wait()
    return int(re.search(r"Collected : (\d+)", said).group(1))


def main():
    if shutil.which("valgrind") is None:
        print("SKIPPED: no valgrind here: instructions are not counted")
        return
    programs = build(sorted({server[0] for server in PINNED}))
    worse = []
    for server, pinned in PINNED.items():
        command = [str(programs / server[0]), *server[1:]]
        extra = instructions(command, MANY) - instructions(command, FEW)
        counted = extra / ((MANY - FEW) * CONNECTIONS)
        name = " ".join(server)
        print(f"{name}: {counted:.0f} instructions a request, pinned at {pinned}", flush=True)
        if counted > pinned * TOLERANCE:
            worse.append(name)
    if worse:
        sys.exit(f"more than {TOLERANCE - 1:.0%} above what is pinned: {', '.join(worse)}")


if __name__ == "__main__":
    main()
