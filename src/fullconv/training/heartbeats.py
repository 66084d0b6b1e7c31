"""The processes of one run watch each other: how all end when one of them dies.

Heartbeats go over plain sockets, not over a store of torch.distributed: the group's own store has no public name, and
a `TCPStore` whose server is stopped (SIGSTOP) blocks its callers for good, whatever its timeout.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import distributed

from fullconv.errors import FullconvError, TrainingError, one_line
from fullconv.metrics.reduce import several_processes
from fullconv.training.processes import agree, count, is_main, rank, text_of, text_of_main

SILENT_SECONDS = 30.0
"""A process without a heartbeat for so long is taken for dead; all others end."""

BEATS = 15
"""Heartbeats in that time: few may be late, none costs anything."""

MEETING_SECONDS = 20.0
"""For the processes to connect at the start."""

GO_ON = "go on with --resume when all are back"

Peers = dict[int, socket.socket]
"""Rank -> the connection to it."""

WORD = struct.Struct(">i")
"""What is said: one of the three below, or the number (from 1) of a process that was lost, and `ENDED` with it."""

BEAT, GOODBYE, FAILED, ENDED = 0, -1, -2, 1 << 24


@contextmanager
def watched() -> Iterator[None]:
    """While inside, the processes watch each other, and a collective that fails is a TrainingError.

    Each sends heartbeats from a thread of its own, the others to the main process and it to them. Where one falls
    silent, the others write a line to stderr and end at once, since their main threads may wait for it inside a
    collective. A process that leaves as it should says goodbye, and is not missed; one that leaves by an exception
    is missed.

    Raises:
        TrainingError: another process died while this one waited for it; or the processes cannot connect.
    """
    if not several_processes():
        yield
        return
    hosts = [text_of(socket.gethostname(), each) for each in range(count())]
    names = [f"process {number} of {count()} on {host}" for number, host in enumerate(hosts, 1)]
    watch = _Watch(_meet(), names)
    watch.start()
    regular = False
    try:
        yield
        regular = True
    except RuntimeError as error:
        if isinstance(error, FullconvError) or not _of_a_collective(error):
            raise
        watch.join(5 * watch.pause)  # in which it says which process that was, and ends this one
        # Gloo's begins with a line of its source in brackets and ends with advice.
        cause = re.sub(r"^\[[^]]*\]\s*", "", one_line(error).partition(": ")[2]).partition(". ")[0]
        raise TrainingError(f"another process of this run ended ({cause}); {GO_ON}") from error
    finally:
        watch.end(regular)


def _of_a_collective(error: RuntimeError) -> bool:
    """Whether another process's end may have caused it: Gloo raises plain RuntimeErrors."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()


def _meet() -> Peers:
    """Connect: the main process with all others. A token keeps strangers out who find the port."""
    listener, invitation = None, ""
    if is_main():
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        listener = socket.create_server(("", 0), family=family, backlog=count(), dualstack_ipv6=both)
        invitation = f"{listener.getsockname()[1]} {secrets.token_hex(16)}"
    port, token = text_of_main(invitation).split()
    # Where the group met; a group that met elsewhere, such as in a file, was started by hand on one machine.
    address = os.environ.get("MASTER_ADDR", "localhost")
    peers: Peers = {}
    problem = None
    try:
        if listener is None:
            peers[0] = socket.create_connection((address, int(port)), MEETING_SECONDS)
            peers[0].sendall(token.encode() + WORD.pack(rank()))
        else:
            with listener:
                _receive(listener, token.encode(), peers)
    except OSError as error:
        problem = (
            f"the processes cannot connect for their heartbeats (port {port} of {address}: {one_line(error)}); open "
            f"the ports between the machines, or set MASTER_ADDR to an address of the first that all others reach"
        )
    try:
        agree(problem)
    except TrainingError:
        for peer in peers.values():
            peer.close()
        raise
    for peer in peers.values():
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peers


def _receive(listener: socket.socket, token: bytes, peers: Peers) -> None:
    """Take the calls of all other processes."""
    deadline = time.monotonic() + MEETING_SECONDS
    while len(peers) < count() - 1:
        listener.settimeout(max(0.01, deadline - time.monotonic()))
        caller, _ = listener.accept()
        caller.settimeout(2.0)
        with suppress(OSError):
            said = caller.recv(len(token) + WORD.size, socket.MSG_WAITALL)
            if hmac.compare_digest(said[: len(token)], token) and len(said) == len(token) + WORD.size:
                peers[WORD.unpack(said[len(token) :])[0]] = caller
                continue
        caller.close()


class _Watch(threading.Thread):
    """Sends heartbeats to the peers and looks for theirs."""

    def __init__(self, peers: Peers, names: list[str]) -> None:
        super().__init__(name="heartbeats", daemon=True)
        self.peers, self.names = peers, names
        self.silent = dict.fromkeys(peers, 0)
        """Beats since the last word of each: counted, not timed, so that a run that was stopped as a whole goes on."""
        self.pause = SILENT_SECONDS / BEATS
        self.unread: dict[int, bytes] = dict.fromkeys(peers, b"")
        self.closed: set[int] = set()
        """Those whose connection was closed: they have ended, however they did."""
        self.leaving = threading.Event()

    def end(self, regular: bool) -> None:
        """Stop watching; a process that ends as it should says so."""
        self.leaving.set()
        self.join()
        for other, peer in self.peers.items():
            self._hear(other, peer)  # what is left unread would reset the connection, and lose the last word
            self._say(peer, GOODBYE if regular else FAILED)
            peer.close()

    def run(self) -> None:
        while not self.leaving.wait(self.pause):
            for other, peer in list(self.peers.items()):
                words = self._hear(other, peer)
                # Who ends by an error may do so because of another's death: it is that one which is named.
                self.silent[other] = -2 if FAILED in words else 0 if words else self.silent[other] + 1
                if GOODBYE in words:
                    del self.peers[other]
                    peer.close()
                    continue
                for word in words:
                    if word > 0:
                        self._die(word % ENDED - 1, ended=word > ENDED)
                self._say(peer, BEAT)
                if other in self.closed and self.silent[other] > 0:  # without a last word: it was killed
                    self._die(other, ended=True)
                if self.silent[other] > BEATS:
                    self._die(other, ended=False)

    def _hear(self, other: int, peer: socket.socket) -> list[int]:
        said = self.unread[other]
        try:
            heard = peer.recv(4096)
            said += heard
            if not heard:
                self.closed.add(other)
        except (BlockingIOError, InterruptedError):  # nothing to read
            pass
        except OSError:
            self.closed.add(other)
        whole = len(said) - len(said) % WORD.size
        self.unread[other] = said[whole:]
        return [word for (word,) in WORD.iter_unpack(said[:whole])]

    def _say(self, peer: socket.socket, word: int) -> None:
        with suppress(OSError):  # its silence will tell
            peer.send(WORD.pack(word))

    def _die(self, lost: int, ended: bool) -> None:
        """End this process, and by way of the main process all others."""
        for peer in self.peers.values():
            self._say(peer, lost + 1 + ENDED * ended)
        why = "has ended" if ended else f"has been silent for {SILENT_SECONDS:g} s"
        line = f"fullconv: {self.names[lost]} {why}; this process ends: {GO_ON}\n"
        os.write(2, line.encode())  # sys.stderr may be locked by a thread that waits
        os._exit(1)
