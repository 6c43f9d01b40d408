"""Two runs of one server must not be called different: `loadgen compare` held to it.

usage: alike.py DIR    where echod and loadgen are

Measures the same echod twice, again and again, and counts how often `compare` sees no difference: at least LEAST of
TRIES. A pair of which a run is not valid (the generator had no CPU in time) is measured again; a machine on which that
happens too often cannot judge, and the check says so and is skipped.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import smoke

TRIES, LEAST = 20, 18
INVALID_MAX = 40  # pairs that may be measured again, over all tries
LOAD = ["--connections=8", "--rate=2k", "--warmup=500ms", "--duration=4s", "--interval=100ms", "--quiet"]
SAME, DIFFERENT, INVALID = 0, 3, 4


def loadgen(program, arguments):
    """The exit code and what was printed; a run takes some seconds."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    if done.returncode not in (SAME, DIFFERENT, INVALID):
        raise smoke.Failed(f"loadgen {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.returncode, done.stdout


def pair(program, port, folder):
    """Measures twice and compares."""
    runs = []
    for name in ("a", "b"):
        out = pathlib.Path(folder, name)
        code, _ = loadgen(program, ["run", f"tcp://127.0.0.1:{port}", *LOAD, f"--out={out}"])
        if code == INVALID:
            return INVALID, ""
        runs.append(str(out / "run.json"))
    return loadgen(program, ["compare", *runs])


def count(program, port):
    """How many of TRIES pairs look alike; none if the machine cannot judge."""
    n_same, n_invalid, tried = 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        while tried < TRIES:
            code, text = pair(program, port, folder)
            if code == INVALID:
                n_invalid += 1
                if n_invalid > INVALID_MAX:
                    return None
                continue
            tried += 1
            n_same += code == SAME
            print(f"  {tried}: {'alike' if code == SAME else text}", flush=True)
    return n_same


def main(folder):
    daemon = smoke.Daemon(os.path.join(folder, "echod"))
    try:
        n_same = count(os.path.join(folder, "loadgen"), daemon.ports()["protocol-echo"])
    except smoke.Failed as failure:
        print(f"alike: {failure}", file=sys.stderr)
        return 1
    finally:
        daemon.kill()
    if n_same is None:
        print(f"SKIPPED: more than {INVALID_MAX} pairs were not valid: the machine is too busy to judge")
        return 0
    print(f"alike: {n_same} of {TRIES} pairs of runs of one server are called alike")
    return 0 if n_same >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else __doc__)
