"""Runs the daemon and the load generator as their users do, and the daemon against clients that are not ours.

usage: smoke.py DIR    where echod and loadgen are

One echod serves configs/echo.toml, callbacks and tasks side by side, on ports the system chooses. Every wait has a bound,
every child is ended by its own handle. What needs a program that is not installed (nc, socat) says that it was skipped.
"""

import asyncio
import filecmp
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

CONFIG = "configs/echo.toml"
SERVICES = ["protocol-echo", "task-echo"]
LISTENING = re.compile(r"listening (\S+) (?:tcp|udp) 127\.0\.0\.1:(\d+)")
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
START_S = 20  # a loaded machine starts slowly, a broken daemon never
STOP_S = 20  # twice the grace period
CLIENT_S = 120  # 64 MiB there and back take under a second on an idle machine
MIB = 1 << 20


class Failed(Exception):
    """A check found something wrong; the text says what."""


class Daemon:
    """One echod, from its start to its exit code."""

    def __init__(self, echod):
        binds = [f"--set=service.{name}.bind=127.0.0.1:0" for name in [*SERVICES, "udp-echo"]]
        binds.append("--set=admin.bind=127.0.0.1:0")
        self.child = subprocess.Popen(
            [echod, "--config", CONFIG, *binds], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.log, self.lines = [], queue.Queue()
        threading.Thread(target=self.read_log, daemon=True).start()

    def read_log(self):
        for line in self.child.stderr:
            self.log.append(line)
            self.lines.put(line)
        self.lines.put(None)

    def ports(self):
        """Waits until every service says where it listens."""
        found, until = {}, time.monotonic() + START_S
        while set(found) != {*SERVICES, "udp-echo", "admin"}:
            try:
                line = self.lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise Failed(f"echod has not said `listening` for {SERVICES} in {START_S} s, only for {found}") from None
            if line is None:
                raise Failed(f"echod ended with {self.child.wait(STOP_S)} before it listened")
            match = LISTENING.search(line)
            if match:
                found[match[1]] = int(match[2])
        return found

    def stop(self):
        if self.child.poll() is not None:
            raise Failed(f"echod ended by itself with {self.child.returncode}")
        self.child.send_signal(signal.SIGTERM)
        try:
            code = self.child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"echod still runs {STOP_S} s after SIGTERM") from None
        if code != 0:
            raise Failed(f"echod ended with {code} after SIGTERM and without clients, not with 0")

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


def run(command, expected, **pipes):
    """Runs a program to its end; its exit code must be one of those expected."""
    pipes.setdefault("stdin", subprocess.DEVNULL)
    try:
        code = subprocess.run(command, timeout=CLIENT_S, **pipes).returncode
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)} has not ended in {CLIENT_S} s") from None
    if code not in expected:
        raise Failed(f"{' '.join(command)} ended with {code}, not one of {expected}")


def check_config(echod):
    run([echod, "--check-config", "-c", CONFIG], [0])
    run([echod, "--check-config", "-c", CONFIG, "--set=runtime.no_such_key=1"], [2], stderr=subprocess.DEVNULL)


async def echo_and_half_close(port, payload):
    """Writes everything, closes the writing half while bytes are still under way, and reads to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send():
        writer.write(payload)
        await writer.drain()
        writer.write_eof()

    _, echoed = await asyncio.gather(send(), reader.read())
    writer.close()
    await writer.wait_closed()
    if echoed != payload:
        raise Failed(f"sent {len(payload)} bytes and got {len(echoed)} others back")


def half_close(port):
    sizes = [0, 1, 1000, 65537, 4 * MIB] + [20000] * 100

    async def clients():
        await asyncio.gather(*(echo_and_half_close(port, os.urandom(size)) for size in sizes))

    try:
        asyncio.run(asyncio.wait_for(clients(), CLIENT_S))
    except (OSError, TimeoutError, asyncio.TimeoutError) as error:
        raise Failed(f"asyncio client: {error!r}") from error


def through(command, size):
    """Sends a file through a foreign client and compares what comes back, byte for byte."""
    if shutil.which(command[0]) is None:
        return print(f"    SKIPPED: no {command[0]} here")
    with tempfile.TemporaryDirectory() as folder:
        sent, echoed = pathlib.Path(folder, "sent"), pathlib.Path(folder, "echoed")
        sent.write_bytes(os.urandom(size))
        with sent.open("rb") as source, echoed.open("wb") as sink:
            run(command, [0], stdin=source, stdout=sink)
        if not filecmp.cmp(sent, echoed, shallow=False):
            raise Failed(f"{command[0]}: {echoed.stat().st_size} of {size} bytes came back, or not the same")


def drive(loadgen, target):
    """A closed loop of 16 connections. loadgen ends with 1 if one byte of one answer is wrong or missing; 4 says that this
    machine is too busy for figures, which nobody wants from here."""
    command = [loadgen, "run", target, "--connections=16", "--warmup=200ms"]
    run(command + ["--duration=2s", "--verify=full", "--quiet"], [0, 4])


def get(port, path):
    """One answer of the admin port: status, content type, text."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=CLIENT_S) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.headers["Content-Type"], refusal.read().decode()
    except OSError as error:
        raise Failed(f"{path}: {error!r}") from error


def metrics(port):
    """After the traffic: health, and metrics that have counted it."""
    for path, expected in [("/live", 200), ("/ready", 200), ("/nothing", 404)]:
        if get(port, path)[0] != expected:
            raise Failed(f"{path} answered {get(port, path)}, not {expected}")
    status, kind, text = get(port, "/metrics")
    if (status, kind) != (200, OPEN_METRICS) or not text.endswith("\n# EOF\n"):
        raise Failed(f"/metrics answered {status}, {kind!r}, and ends with {text[-80:]!r}")
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for start in ["garland_loop_turns_total{", *(f'echod_answered_bytes_total{{service="{name}"' for name in SERVICES)]:
        if sum(float(value) for name, value in samples.items() if name.startswith(start)) <= 0:
            raise Failed(f"nothing was counted in {start}")


def demo(loadgen):
    """loadgen's own server; the demo ends with 0 whatever it measured, so what it complains of is read too."""
    with tempfile.TemporaryFile("w+") as complaints:
        run([loadgen, "demo", "--duration=1s"], [0], stderr=complaints)
        complaints.seek(0)
        text = complaints.read()
    if text:
        raise Failed(f"loadgen demo complains: {text}")


def main(folder):
    echod, loadgen = os.path.join(folder, "echod"), os.path.join(folder, "loadgen")
    checks = [("check-config", lambda: check_config(echod))]
    daemon = Daemon(echod)
    try:
        ports = daemon.ports()
        admin, udp = ports.pop("admin"), ports.pop("udp-echo")
        for service, port in ports.items():
            checks += [
                (f"{service}: half-close", lambda port=port: half_close(port)),
                (f"{service}: nc -N, 64 MiB", lambda port=port: through(["nc", "-N", "127.0.0.1", str(port)], 64 * MIB)),
                (f"{service}: socat", lambda port=port: through(["socat", "-t60", "-", f"TCP:127.0.0.1:{port}"], 3 * MIB)),
                (f"{service}: loadgen run", lambda port=port: drive(loadgen, f"tcp://127.0.0.1:{port}")),
            ]
        checks.append(("udp-echo: loadgen run", lambda: drive(loadgen, f"udp://127.0.0.1:{udp}")))
        checks += [("metrics", lambda: metrics(admin)), ("SIGTERM", daemon.stop), ("loadgen demo", lambda: demo(loadgen))]
        for name, check in checks:
            start = time.monotonic()
            print(f"  {name}", flush=True)
            check()
            print(f"    ok, {time.monotonic() - start:.1f} s", flush=True)
    except Failed as failure:
        print(f"smoke: {failure}\nthe daemon's last lines:\n{''.join(daemon.log[-30:])}", file=sys.stderr)
        return 1
    finally:
        daemon.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else __doc__)
