"""Plays scenarios on asyncio and prints what happened: `python3 asyncio_runner.py FILE...`

The language is described in main.rs beside this file, whose other half plays the same files on garland. Here is
one method for each word of it: `act_*` acts at once, `step_*` may wait. Needs nothing but Python itself, 3.11 or
newer. Prints `python X.Y`, then for each scenario its name in brackets and its trace.
"""

import asyncio
import contextlib
import errno
import os
import re
import socket
import struct
import sys
import tempfile
import threading
import time

LIMIT = 10  # seconds for one scenario; the trace of one that takes longer says so
SETTLE = 4  # turns after the script, for what must not come
POLL = 0.001  # seconds between two looks at the peer
BATCH = 256 * 1024


class Failure(Exception):
    """The action `fail`."""


class Mistake(Exception):
    """One of the scenario; it is in the trace."""


class Return(Exception):
    """The action `return`."""


# ---- the language -------------------------------------------------------------------------------------------------


def words(text):
    """Actions, separated by `;`, each a list of words; one in quotes keeps its opening quote."""
    actions = [[]]
    for token in re.finditer(r'"((?:[^"\\]|\\.)*)"|;|[^\s;"]+', text):
        if token[0] == ";":
            actions.append([])
        elif token[1] is not None:
            escapes = {"n": "\n", "r": "\r", "t": "\t"}
            actions[-1].append('"' + re.sub(r"\\(.)", lambda e: escapes.get(e[1], e[1]), token[1]))
        else:
            actions[-1].append(token[0])
    return [action for action in actions if action]


class Scenario:
    def __init__(self, name):
        self.name = name
        self.side = ["server"]
        self.reactions = []  # (event, is it for the first time only, actions)
        self.tasks = {}
        self.script = []


def scenarios(path):
    for line in open(path, encoding="utf-8"):
        line = line.strip()
        if line.startswith("["):
            if "scenario" in locals():
                yield scenario
            scenario = Scenario(line[1:-1])
        elif line and line[0] not in "#|":
            first, _, rest = line.partition(" ")
            if first == "side":
                scenario.side = rest.split()
            elif first in ("on", "once", "task"):
                name, _, block = rest.partition(":")
                if first == "task":
                    scenario.tasks[name] = words(block)
                else:
                    scenario.reactions.append((name, first == "once", words(block)))
            elif first not in ("differs", "since"):
                scenario.script += words(line)
    if "scenario" in locals():
        yield scenario


def data_of(word):
    """`"text"`, or that many dots: 5, 64k, 16M."""
    if word.startswith('"'):
        return word[1:].encode()
    return b"." * number(word)


def number(word):
    return int(word.rstrip("kM")) * {"k": 1024, "M": 1024 * 1024}.get(word[-1], 1)


def show(data):
    if len(data) > 40:
        return f"{len(data)} bytes"
    text = "".join({"\n": "\\n", "\r": "\\r", '"': '\\"'}.get(char, char) for char in data.decode())
    return f'"{text}"'


def reason(error):
    """The name of an error that both sides know."""
    match error:
        case None:
            return "none"
        case ConnectionResetError():
            return "reset"
        case BrokenPipeError():
            return "broken pipe"
        case ConnectionRefusedError():
            return "refused"
        case OSError(errno=errno.EMSGSIZE):
            return "too long"
        case Failure():
            return "failure"
    return type(error).__name__


# ---- the stage ----------------------------------------------------------------------------------------------------


class Stage:
    """One scenario while it is played: its trace, and all that has a name in it."""

    def __init__(self, loop, scenario):
        self.loop, self.scenario = loop, scenario
        self.lines, self.peer_lines, self.counts = [], [], {}
        self.joined = None  # data events that follow each other: (name, bytes)
        self.used = set()  # reactions for the first time only
        self.named, self.names = {}, {}
        self.transport = self.peer = self.reader = self.writer = None
        self.at = "connecting"
        self.keep_open = False
        self.began = loop.time()
        self.is_over = False
        self.cleanup = []

    def log(self, line):
        if not self.is_over:
            self.flush()
            self.lines.append(line)

    def flush(self):
        if self.joined:
            name, data = self.joined
            self.joined = None
            self.lines.append(f"{name} {show(data)}")

    def event(self, name, detail=""):
        """Something the loop tells us."""
        self.log(f"{name} {detail}".rstrip())
        self.counts[name] = self.counts.get(name, 0) + 1
        self.react(name)

    def data(self, name, data):
        if not self.joined or self.joined[0] != name:
            self.flush()
            self.joined = (name, bytearray())
        self.joined[1].extend(data)
        self.counts[name] = self.counts.get(name, 0) + len(data)
        self.react(name)

    def react(self, name):
        for index, (event, once, actions) in enumerate(self.scenario.reactions):
            if event == name and index not in self.used and not self.is_over:
                if once:
                    self.used.add(index)
                for action in actions:
                    self.act(action)

    def act(self, action):
        word, *rest = action
        method = getattr(self, "act_" + word, None)
        if method is None:
            self.log(f"! {word}: not an action here")
            return
        with self.mistakes():
            method(*rest)

    async def play(self, actions):
        for action in actions:
            method = getattr(self, "step_" + action[0], None)
            if method:
                with self.mistakes():
                    await method(*action[1:])
            else:
                self.act(action)

    @contextlib.contextmanager
    def mistakes(self):
        """Logs what no scenario intends."""
        try:
            yield
        except (Failure, Return):
            raise
        except Exception as error:
            if not isinstance(error, Mistake):
                self.log(f"! {error!r}")
            raise Mistake from error

    def refusable(self, what, call, *args):
        try:
            return call(*args)
        except (RuntimeError, ValueError, asyncio.InvalidStateError):
            self.log(f"{what} refused")

    # -- anywhere

    def act_note(self, *text):
        self.log("note " + " ".join(word.removeprefix('"') for word in text))

    def act_fail(self):
        raise Failure

    def act_block(self, ms):
        time.sleep(float(ms) / 1000)

    # -- transports

    def act_write(self, data):
        self.refusable("write", (self.writer or self.transport).write, data_of(data))

    def act_write_lines(self, *pieces):
        self.refusable("write_lines", self.transport.writelines, [data_of(piece) for piece in pieces])

    def act_write_eof(self):
        self.refusable("write_eof", self.transport.write_eof)

    def act_close(self):
        self.transport.close()

    def act_abort(self):
        self.transport.abort()

    def act_pause_reading(self):
        self.transport.pause_reading()

    def act_resume_reading(self):
        self.transport.resume_reading()

    def act_keep_open(self):
        self.keep_open = True

    def act_limits(self, high, low=None):
        low = None if low is None else number(low)
        self.refusable("limits", self.transport.set_write_buffer_limits, number(high), low)

    def act_switch(self, name):
        self.transport.set_protocol(Actor(self, name + "."))

    def act_show(self, what):
        transport = self.transport
        if what == "limits":
            low, high = transport.get_write_buffer_limits()
            answer = f"high {high} low {low}"
        elif what == "buffered":
            answer = "some" if transport.get_write_buffer_size() else "none"
        elif what == "peername":
            answer = "known" if transport.get_extra_info("peername") else "unknown"
        else:
            answer = str(getattr(transport, what)()).lower()
        self.log(f"{what} {answer}")

    # -- datagrams

    def act_send(self, data, to="peer"):
        if self.scenario.side == ["udp-to"] and to == "peer":
            self.transport.sendto(data_of(data))
            return
        addr = self.peer.getsockname() if to == "peer" else self.nobody
        self.refusable("send", self.transport.sendto, data_of(data), addr)

    # -- callbacks

    def act_soon(self, name):
        self.named[name] = self.loop.call_soon(self.event, name)

    def act_later(self, ms, name):
        self.named[name] = self.loop.call_later(float(ms) / 1000, self.event, name)

    def act_at(self, ms, name):
        self.named[name] = self.loop.call_at(self.began + float(ms) / 1000, self.event, name)

    def act_threadsafe(self, name):
        self.loop.call_soon_threadsafe(self.event, name)

    def act_thread(self, *names):
        def call():
            for name in names:
                self.loop.call_soon_threadsafe(self.event, name)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    def act_cancel(self, name):
        cancelled = self.named[name].cancel()
        if cancelled is not None:
            self.log(f"cancel {name} {str(cancelled).lower()}")

    def act_watch_reader(self, name):
        self.loop.add_reader(self.peer, self.event, name)

    def act_watch_writer(self, name):
        self.loop.add_writer(self.peer, self.event, name)

    def act_unwatch_reader(self):
        self.log(f"unwatch_reader {str(self.loop.remove_reader(self.peer)).lower()}")

    def act_unwatch_writer(self):
        self.log(f"unwatch_writer {str(self.loop.remove_writer(self.peer)).lower()}")

    def act_stop(self):
        self.loop.stop()

    # -- futures and tasks

    def act_future(self, name):
        self.named[name] = self.loop.create_future()

    def act_set(self, name, value):
        self.refusable(f"set {name}", self.named[name].set_result, value)

    def act_callback(self, future, name):
        self.named[name] = lambda _future: self.event(name)
        self.named[future].add_done_callback(self.named[name])

    def act_uncallback(self, future, name):
        self.named[future].remove_done_callback(self.named[name])

    def act_result(self, name):
        try:
            self.log(f"{name} is {self.named[name].result()}")
        except asyncio.CancelledError:
            self.log(f"{name} is cancelled")
        except asyncio.InvalidStateError:
            self.log(f"{name} is pending")

    def act_done(self, name):
        self.log(f"done {name} {str(self.named[name].done()).lower()}")

    def act_spawn(self, name):
        self.named[name] = self.loop.create_task(self.body(name))
        self.names[self.named[name]] = name
        self.cleanup.append(self.named[name].cancel)

    async def body(self, name):
        guards = []
        self.named["guards of " + str(id(asyncio.current_task()))] = guards
        try:
            await self.play(self.scenario.tasks[name])
        except Return as value:
            return value.args[0]
        finally:
            for guard in reversed(guards):
                self.event(guard)
        return "none"

    def act_return(self, value):
        raise Return(value)

    def act_guard(self, name):
        self.named["guards of " + str(id(asyncio.current_task()))].append(name)

    def outcome(self, future):
        if future.cancelled():
            return "cancelled"
        return "failed" if future.exception() else future.result()

    async def step_yield(self):
        await asyncio.sleep(0)

    async def step_turns(self, count):
        for _ in range(int(count)):
            await asyncio.sleep(0)

    async def step_sleep(self, ms):
        await asyncio.sleep(float(ms) / 1000)

    async def step_await(self, name):
        try:
            await self.named[name]
        except Failure:
            pass
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling() or not self.named[name].cancelled():
                raise
        self.log(f"{name} -> {self.outcome(self.named[name])}")

    async def step_gather(self, *names):
        try:
            values = await asyncio.gather(*(self.named[name] for name in names))
            self.log("gather -> " + " ".join(values))
        except Failure:
            self.log("gather failed")
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():
                raise
            self.log("gather cancelled")

    async def step_gather_all(self, *names):
        await asyncio.gather(*(self.named[name] for name in names), return_exceptions=True)
        self.log("gather_all -> " + " ".join(self.outcome(self.named[name]) for name in names))

    async def step_wait_first(self, *names, when=asyncio.FIRST_COMPLETED, limit=None):
        tasks = [self.named[name] for name in names]
        done, pending = await asyncio.wait(tasks, timeout=limit, return_when=when)
        self.log("ended " + " ".join(self.names[task] for task in tasks if task in done))
        self.log(("live " + " ".join(self.names[task] for task in tasks if task in pending)).rstrip())

    async def step_wait_exception(self, *names):
        await self.step_wait_first(*names, when=asyncio.FIRST_EXCEPTION)

    async def step_wait_all(self, ms, *names):
        await self.step_wait_first(*names, when=asyncio.ALL_COMPLETED, limit=float(ms) / 1000)

    async def step_wait_for(self, ms, name):
        try:
            self.log(f"{name} -> {await asyncio.wait_for(self.named[name], float(ms) / 1000)}")
        except TimeoutError:
            self.log(f"{name} timed out")
        except Failure:
            self.log(f"{name} -> failed")

    async def step_as_completed(self, *names):
        values = [await task for task in asyncio.as_completed([self.named[name] for name in names])]
        self.log("as_completed -> " + " ".join(values))

    async def step_group(self, *names):
        try:
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(self.body(name))
            self.log("group ended")
        except* Failure as failures:
            self.log(f"group failed {len(failures.exceptions)}")

    # -- one-loop primitives

    def act_semaphore(self, name, permits):
        self.named[name] = asyncio.Semaphore(int(permits))

    async def step_acquire(self, name):
        await self.named[name].acquire()

    def act_release(self, name):
        self.named[name].release()

    def act_event(self, name):
        self.named[name] = asyncio.Event()

    def act_event_set(self, name):
        self.named[name].set()

    def act_event_clear(self, name):
        self.named[name].clear()

    async def step_event_wait(self, name):
        await self.named[name].wait()

    def act_queue(self, name, size):
        self.named[name] = asyncio.Queue(int(size))

    async def step_put(self, name, value):
        await self.named[name].put(value)

    async def step_get(self, name):
        self.log(f"{name} gave {await self.named[name].get()}")

    # -- streams

    async def stream(self, what, reading):
        try:
            self.log(f"{what} {show(await reading)}")
        except asyncio.IncompleteReadError as error:
            self.log(f"{what} incomplete {show(error.partial)}")
        except (asyncio.LimitOverrunError, ValueError):
            self.log(f"{what} over the limit")
        except OSError as error:
            self.log(f"{what} {reason(error)}")

    async def step_read(self, count):
        await self.stream("read", self.reader.read(number(count)))

    async def step_read_all(self):
        await self.stream("read_all", self.reader.read())

    async def step_readline(self):
        await self.stream("readline", self.reader.readline())

    async def step_readexactly(self, count):
        await self.stream("readexactly", self.reader.readexactly(number(count)))

    async def step_readuntil(self, separator):
        await self.stream("readuntil", self.reader.readuntil(data_of(separator)))

    async def attempt(self, what, waiting):
        try:
            await waiting
            self.log(what)
        except OSError as error:
            self.log(f"{what} {reason(error)}")

    async def step_drain(self):
        await self.attempt("drain", self.writer.drain())

    async def step_wait_closed(self):
        await self.attempt("wait_closed", self.writer.wait_closed())

    def act_at_eof(self):
        self.log(f"at_eof {str(self.reader.at_eof()).lower()}")

    # -- waiting for events

    async def step_wait(self, name, count="1"):
        while self.counts.get(name, 0) < number(count):
            await asyncio.sleep(POLL)

    # -- the peer: a plain socket or pipe that blocks nobody

    async def step_peer(self, what, *rest):
        await getattr(self, "peer_" + what)(*rest)

    async def blocking(self, call):
        """Repeats a call of the peer until it does not have to wait."""
        while True:
            try:
                return call()
            except BlockingIOError:
                await asyncio.sleep(POLL)

    async def peer_send(self, data):
        data = memoryview(data_of(data))
        if self.peer_is_datagram():
            self.peer.sendto(data, self.transport.get_extra_info("sockname"))
            return
        try:
            while data:
                data = data[await self.blocking(lambda: os.write(self.peer.fileno(), data)) :]
        except OSError as error:
            self.peer_lines.append(f"peer send {reason(error)}")

    def peer_is_datagram(self):
        return self.scenario.side[0].startswith("udp")

    async def peer_read(self, count):
        """So many bytes, or all until the end; of datagrams the next one."""
        data, end = bytearray(), None
        limit = sys.maxsize if count == "all" else number(count)
        while len(data) < limit and end is None:
            try:
                more = await self.blocking(lambda: os.read(self.peer.fileno(), min(BATCH, limit - len(data))))
            except OSError as error:
                more, end = b"", reason(error)
            data += more
            if self.peer_is_datagram():
                break
            if not more:
                end = end or "eof"
        if data or self.peer_is_datagram():
            self.peer_lines.append(f"peer read {show(data)}")
        if end:
            self.peer_lines.append(f"peer {end}")

    async def peer_shutdown(self):
        self.peer.shutdown(socket.SHUT_WR)

    async def peer_close(self):
        self.peer.close()

    async def peer_reset(self):
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()


class Actor(asyncio.Protocol, asyncio.DatagramProtocol):
    """The protocol of a scenario: tells the stage of every call-back."""

    def __init__(self, stage, prefix=""):
        self.stage, self.prefix = stage, prefix

    def connection_made(self, transport):
        self.stage.transport = transport
        self.stage.event("made")

    def data_received(self, data):
        self.stage.data(self.prefix + "data", data)

    def eof_received(self):
        self.stage.event(self.prefix + "eof")
        return self.stage.keep_open

    def connection_lost(self, error):
        self.stage.event(self.prefix + "lost", reason(error))

    def pause_writing(self):
        self.stage.event(self.prefix + "pause")

    def resume_writing(self):
        self.stage.event(self.prefix + "resume")

    def datagram_received(self, data, addr):
        self.stage.event(self.prefix + "datagram", show(data))

    def error_received(self, error):
        self.stage.event(self.prefix + "error", reason(error))


class BufferedActor(asyncio.BufferedProtocol):
    """The same, read into a buffer of its own."""

    def __init__(self, stage):
        self.actor = Actor(stage)
        self.buffer = bytearray(16)

    def __getattribute__(self, name):
        if name in ("connection_made", "eof_received", "connection_lost", "pause_writing", "resume_writing"):
            return getattr(self.actor, name)
        return object.__getattribute__(self, name)

    def get_buffer(self, hint):
        return self.buffer

    def buffer_updated(self, count):
        self.actor.data_received(bytes(self.buffer[:count]))


# ---- the sides: which end of what the scenario plays -----------------------------------------------------------------


def listener(family, addr):
    sock = socket.socket(family)
    sock.bind(addr)
    sock.listen()
    return sock


def connected(family, addr):
    sock = socket.socket(family)
    sock.connect(addr)
    return sock


async def set_up(stage):
    loop, (side, *options) = stage.loop, stage.scenario.side
    reacts_to_factory = any(event == "factory" for event, *_ in stage.scenario.reactions)

    def factory():
        stage.react("factory")
        return BufferedActor(stage) if "buffered" in options else Actor(stage)

    inet, unix = (socket.AF_INET, ("127.0.0.1", 0)), socket.AF_UNIX
    if side == "server":
        server = await loop.create_server(factory, "127.0.0.1", 0)
        stage.peer = connected(socket.AF_INET, server.sockets[0].getsockname())
        stage.cleanup.append(server.close)
    elif side == "client":
        with listener(*inet) as listening:
            await loop.create_connection(factory, *listening.getsockname())
            stage.peer, _ = listening.accept()
    elif side in ("unix", "unix-client"):
        with tempfile.TemporaryDirectory() as folder:
            path = folder + "/socket"
            if side == "unix":
                server = await loop.create_unix_server(factory, path)
                stage.peer = connected(unix, path)
                await stage.step_wait("made")
                stage.cleanup.append(server.close)
            else:
                with listener(unix, path) as listening:
                    await loop.create_unix_connection(factory, path)
                    stage.peer, _ = listening.accept()
    elif side in ("read-pipe", "write-pipe"):
        reader, writer = os.pipe()
        if side == "read-pipe":
            stage.peer = open(writer, "wb", buffering=0)
            await loop.connect_read_pipe(factory, open(reader, "rb", buffering=0))
        else:
            stage.peer = open(reader, "rb", buffering=0)
            await loop.connect_write_pipe(factory, open(writer, "wb", buffering=0))
    elif side in ("udp", "udp-to"):
        stage.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stage.peer.bind(inet[1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.bind(inet[1])
            stage.nobody = nobody.getsockname()
        ends = {"remote_addr": stage.peer.getsockname()} if side == "udp-to" else {"local_addr": inet[1]}
        await loop.create_datagram_endpoint(factory, **ends)
    elif side == "stream":
        limit = {"limit": number(options[0])} if options else {}
        with listener(*inet) as listening:
            stage.reader, stage.writer = await asyncio.open_connection(*listening.getsockname(), **limit)
            stage.peer, _ = listening.accept()
        stage.transport = stage.writer.transport
    elif side != "loop":
        raise ValueError(f"no side is called {side}")
    if side not in ("loop", "stream") and not reacts_to_factory:
        await stage.step_wait("made")
    if stage.peer:
        os.set_blocking(stage.peer.fileno(), False)


async def play(stage):
    try:
        async with asyncio.timeout(LIMIT):
            await set_up(stage)
            for action in stage.scenario.script:
                stage.at = " ".join(action)
                await stage.play([action])
            await stage.step_turns(SETTLE)
    except TimeoutError:
        stage.log(f"! after {LIMIT} s still at: {stage.at}")
    except Exception as error:
        if not isinstance(error, Mistake):
            stage.log(f"! {error!r}")


async def clean_up(stage):
    for undo in stage.cleanup:
        undo()
    if stage.transport:
        with contextlib.suppress(AttributeError):  # what asyncio says of a transport that is gone
            stage.transport.abort()
    if stage.peer:
        with contextlib.suppress(ValueError):  # it is closed already
            stage.loop.remove_reader(stage.peer)
            stage.loop.remove_writer(stage.peer)
        stage.peer.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def run(scenario):
    loop = asyncio.new_event_loop()
    stage = Stage(loop, scenario)
    loop.set_exception_handler(lambda _loop, _context: stage.event("reported"))
    script = loop.create_task(play(stage))
    while not script.done():
        try:
            loop.run_until_complete(script)
        except RuntimeError as stopped:
            if script.done():
                raise
            stage.log("stopped")
    stage.flush()
    stage.is_over = True
    loop.run_until_complete(clean_up(stage))
    loop.close()
    print(f"[{scenario.name}]", *stage.lines, *stage.peer_lines, sep="\n", flush=True)


if __name__ == "__main__":
    # What asyncio only logs is not part of a trace.
    __import__("logging").disable()
    print("python {}.{}".format(*sys.version_info))
    for path in sys.argv[1:]:
        for scenario in scenarios(path):
            run(scenario)
