"""nftables of one network namespace, through libnftables in this process: no fork, and one transaction a script.

A context's netlink socket belongs to the namespace in which it was opened, and libnftables ≥ 0.9.9 keeps that socket
until the context is freed, so a context may be used from any thread. The library's parser holds no lock of Python's.
Source: libnftables(3).
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from testbed.errors import KernelError, MachineLacks
from testbed.kernel import netns as namespaces
from testbed.kernel.nlmsg import Message
from testbed.kernel.nlsocket import NETLINK_NETFILTER, NetlinkSocket

log = logging.getLogger(__name__)

_LIBRARY = "libnftables.so.1"
_NFT_MSG_GETGEN = 0x0A10  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN
_NFTA_GEN_ID = 1
_SHOWN_LINES, _SHOWN_COLUMNS = 40, 400
"""Of a script, in the log."""
_OUTPUT_TERSE = 1 << 11  # NFT_CTX_OUTPUT_TERSE
_LARGE = 10_000
"""Characters of a script after which the context is made anew: it keeps all that it has parsed, about 100 bytes for
each character, and all that it has listed."""


class LibNft:
    """The kernel's `Nft` of the namespace at `netns`, or of the calling thread's own."""

    def __init__(self, netns: Path | None = None) -> None:
        self._library = _library()
        self._netns = netns
        self._context: ctypes.c_void_p | None = self._opened()
        self._generations = NetlinkSocket(NETLINK_NETFILTER, netns)
        self._prefix = f"nsenter --net={netns} " if netns else ""
        self._lock = threading.Lock()
        self._generation = self._read_generation()
        self._is_edited = False

    def load(self, script: str) -> None:
        """All of the script in one transaction, or KernelError with nft's own words and none of it.

        `errno` is EMSGSIZE where the transaction is too large for this user's socket buffer.
        """
        if log.isEnabledFor(logging.INFO):
            log.info("%snft -f - <<'EOF'\n%s\nEOF", self._prefix, _shortened(script))
        with self._lock:
            before = self._read_generation()
            self._run(script)
            self._note(before)
            if len(script) > _LARGE:
                self._renew()

    def list(self, what: str = "ruleset", *, terse: bool = False) -> str:
        """`nft list WHAT`, with `terse` without the elements; empty where there is no such thing."""
        with self._lock:
            try:
                return self._run(f"list {what}", _OUTPUT_TERSE if terse else 0)
            except KernelError as error:
                if error.errno == errno.ENOENT:
                    return ""
                raise
            finally:
                self._renew()

    def was_edited(self) -> bool:
        """Whether anybody else has committed a transaction in this namespace since the last call of this method.

        It compares the ruleset's generation number, which the kernel raises by one with each commit.
        """
        with self._lock:
            self._note(None)
            is_edited, self._is_edited = self._is_edited, False
            return is_edited

    @contextmanager
    def counting(self, commits: int) -> Iterator[None]:
        """Meanwhile another program commits up to so many transactions on our behalf: they are nobody's edits."""
        with self._lock:
            before = self._read_generation()
            try:
                yield
            finally:
                self._note(before, commits)

    def close(self) -> None:
        """Release the handle. Whoever comes later, a thread that was not waited for, gets KernelError (EBADF)."""
        with self._lock:
            self._free()
            self._generations.close()

    def _opened(self) -> ctypes.c_void_p:
        return self._open() if self._netns is None else namespaces.inside(self._netns, self._open)

    def _open(self) -> ctypes.c_void_p:
        context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        if not context:
            raise KernelError("libnftables cannot open its netlink socket", errno.EPERM)
        self._library.nft_ctx_buffer_output(context)
        self._library.nft_ctx_buffer_error(context)
        return context

    def _run(self, commands: str, flags: int = 0) -> str:
        if self._context is None:
            raise KernelError(f"{self._prefix}nft: the handle is closed", errno.EBADF)
        self._library.nft_ctx_output_set_flags(self._context, flags)
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        said: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            message = said.decode().strip()
            raise KernelError(f"{self._prefix}nft: {message}", _errno(message))
        return output.decode()

    def _renew(self) -> None:
        if self._context is not None:
            self._free()
            self._context = self._opened()

    def _free(self) -> None:
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def _note(self, before: int | None, commits: int = 1) -> None:
        """Remember the generation now; ours account for so many steps from `before`, and for no others."""
        now = self._read_generation()
        if before is None:
            self._is_edited |= now != self._generation
        else:
            self._is_edited |= before != self._generation or now - before > commits
        self._generation = now

    def _read_generation(self) -> int:
        reply = self._generations.request(Message(_NFT_MSG_GETGEN, 0, bytes(4)))
        return int.from_bytes(reply.attributes(4)[_NFTA_GEN_ID], "big")


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        raise MachineLacks(f"{_LIBRARY} is not installed: apt-get install libnftables1") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


def _errno(message: str) -> int:
    """nft says the errno only in words."""
    known = (errno.EMSGSIZE, errno.ENOENT, errno.EEXIST, errno.EPERM, errno.EBUSY)
    return next((number for number in known if os.strerror(number) in message), 0)


def _shortened(script: str) -> str:
    lines = script.strip().split("\n")
    shown = [f"{line[:_SHOWN_COLUMNS]} …" if len(line) > _SHOWN_COLUMNS else line for line in lines[:_SHOWN_LINES]]
    more = [f"# … and {len(lines) - len(shown)} lines more"] if len(lines) > len(shown) else []
    return "\n".join([*shown, *more])
