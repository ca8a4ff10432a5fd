"""The emulator as a process: one port, one line when it is ready, stops on SIGTERM with 0."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final

import uvicorn

from emulator.app import Emulator
from emulator.clock import Clock
from emulator.one_write import OneWriteProtocol
from emulator.settings import EmulatorSettings, SettingsError, parse_settings

# Idle connections stay open longer than any client's poll rhythm.
_KEEP_ALIVE_SECS: Final = 75
_BACKLOG: Final = 512


class _Server(uvicorn.Server):
    """Uvicorn, told to answer the long polls as soon as it is asked to stop."""

    def __init__(self, config: uvicorn.Config, emulator: Emulator, ready_line: str) -> None:
        super().__init__(config)
        self._emulator = emulator
        self._ready_line = ready_line
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told_to_stop = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        print(self._ready_line, flush=True)  # noqa: T201 (the one line that is promised)

    async def main_loop(self) -> None:
        # Uvicorn's own looks ten times a second whether it should stop.
        if not await self.on_tick(0):
            await self._told_to_stop.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._emulator.stop_waiting)
            self._loop.call_soon_threadsafe(self._told_to_stop.set)


def main(argv: Sequence[str]) -> int:
    """Run the emulator until SIGTERM or SIGINT; returns the exit code."""
    try:
        settings = parse_settings(argv)
        listener = _listen(settings.host, settings.port)
    except SettingsError as error:
        print(f"emulator: {error}", file=sys.stderr)  # noqa: T201
        return 2
    with listener:
        # What is preloaded lives as long as the process: not the garbage collector's business.
        gc.disable()
        try:
            emulator = Emulator(settings, Clock())
            emulator.preload()
        except OSError as error:
            reason = f"the send log cannot be written ({error.strerror}): see --traffic_send_log"
            print(f"emulator: {reason}", file=sys.stderr)  # noqa: T201
            return 2
        gc.freeze()
        gc.enable()
        config = uvicorn.Config(
            emulator,
            http=OneWriteProtocol,
            ws="none",
            lifespan="on",
            log_level="error",
            access_log=False,
            server_header=False,
            date_header=False,  # each answer's own says what time the emulator believes it is
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECS,
            timeout_graceful_shutdown=1,
        )
        # Uvicorn raises the signal that stopped it again, for handlers that stood before it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        server = _Server(config, emulator, _ready_line(settings, listener))
        asyncio.run(server.serve([listener]))
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's delay off only where it reads "TCP".
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another --port, "
            "or stop what uses it"
        ) from None
    listener.listen(_BACKLOG)
    return listener


def _ready_line(settings: EmulatorSettings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = listener.getsockname()[1]
    queues = ", ".join(settings.queue_names)
    return f"emulator ready: http://{host}:{port} (account key {settings.key_id}, queues {queues})"
