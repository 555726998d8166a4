#!/usr/bin/env python3
"""Talks to byway as Python's `websockets` does, compressed in each way there is, and not; see autobahn.sh.

    websockets.py URL
"""

import asyncio
import json
import os
import sys

# Not from this folder, where this file has the same name.
sys.path.pop(0)
from websockets.asyncio.client import connect  # noqa: E402
from websockets.exceptions import ConnectionClosedError  # noqa: E402
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory as Deflate  # noqa: E402

OFFERS = [
    None,
    Deflate(),
    Deflate(client_max_window_bits=True),
    Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
    Deflate(server_max_window_bits=9, client_max_window_bits=9),
    Deflate(server_max_window_bits=12, client_max_window_bits=10, server_no_context_takeover=True),
]


def check(condition, what):
    if not condition:
        sys.exit(f"websockets: {what}")


async def echo(url, offer):
    """Messages of all sizes, whole and in fragments, come back."""
    extensions = [offer] if offer else None
    async with connect(url, extensions=extensions, compression=None, max_size=None) as socket:
        agreed = [extension.name for extension in socket.protocol.extensions]
        check(agreed == (["permessage-deflate"] if offer else []), f"agreed on {agreed} for {offer}")
        text = json.dumps([{"id": i, "name": f"größe-{i % 17}"} for i in range(20_000)], ensure_ascii=False)
        for size in [0, 1, 63, 64, 125, 126, 1_000, 8_192, 8_193, 65_535, 65_536, len(text)]:
            for message in (text[:size], os.urandom(size)):
                await socket.send(message)
                check(await socket.recv() == message, f"{size} octets changed with {offer}")
        await socket.send(text[i : i + 1_000] for i in range(0, 50_000, 1_000))
        check(await socket.recv() == text[:50_000], f"fragments changed with {offer}")
        await asyncio.wait_for(await socket.ping(b"between"), 5)


async def too_big(url):
    """A bomb is cut off with 1009."""
    async with connect(url, compression="deflate", max_size=None) as socket:
        try:
            await socket.send(bytes(64 << 20))
            await socket.recv()
            check(False, "64 MiB were taken")
        except ConnectionClosedError as closed:
            check(closed.rcvd is not None and closed.rcvd.code == 1009, f"a bomb: {closed}")


async def pushed(url):
    """Messages that nobody asked for, and a sub-protocol."""
    async with connect(url + "/ticker", subprotocols=["none-such", "superchat", "chat"]) as socket:
        check(socket.subprotocol == "superchat", f"sub-protocol {socket.subprotocol}")
        ticks = [json.loads(await asyncio.wait_for(socket.recv(), 5))["tick"] for _ in range(2)]
        check(ticks == [1, 2], f"ticks {ticks}")


async def main(url):
    for offer in OFFERS:
        await echo(url, offer)
    await too_big(url)
    await pushed(url)
    print(f"websockets: {len(OFFERS)} offers, a bomb, the ticker: all right")


asyncio.run(main(sys.argv[1]))
