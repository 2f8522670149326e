"""The far end of a tunnel, on the machine that it is run on, until its standard input ends.

``python -m tests.lab.spoke DEVICE NAMESPACE ADDRESS RUN KEYFILE HUBKEY HOST PORT``
"""

import asyncio
import sys
from ipaddress import IPv4Interface
from pathlib import Path

from anabranch.host.wireguard import KEEPALIVE_S, Interface, Peer, private_key


async def main(
    device: str, namespace: str, address: str, run: str, file: str, key: str, host: str, port: str
) -> None:
    own = IPv4Interface(address)
    spoke = Interface(device, namespace, own, private_key(Path(file)), run)
    await spoke.start()
    try:
        await spoke.set_peers([Peer(key, (own.network,), (host, int(port)), KEEPALIVE_S)])
        sys.stdout.write("up\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await spoke.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
