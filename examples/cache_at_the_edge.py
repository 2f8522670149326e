"""Users ask ActiveCDN's module for the same object, on this machine's loopback and without root.

    five users --- the module and its cache --- an origin that sends 100 kB every tenth of a second

The first bytes reach all of them long before the last have come from the origin, which is asked
once.
"""

import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from anabranch.services.module import Context
from anabranch.services.modules.activecdn.activecdn import ActiveCdn

PARTS, PART = 10, b"x" * 100_000


class SlowOrigin(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        SlowOrigin.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(PARTS * len(PART)))
        self.send_header("Cache-Control", "max-age=60")
        self.end_headers()
        for _ in range(PARTS):
            self.wfile.write(PART)
            time.sleep(0.1)

    def log_message(self, *args: object) -> None:
        pass


def get(client: httpx.Client, url: str) -> tuple[float, float, int]:
    """Return when the first byte and the last one came, in seconds, and how many there were."""
    began, first, count = time.monotonic(), 0.0, 0
    with client.stream("GET", url) as response:
        for part in response.iter_raw():
            first = first or time.monotonic() - began
            count += len(part)
    return first, time.monotonic() - began, count


def main() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowOrigin) as origin:
        threading.Thread(target=origin.serve_forever, args=(0.05,), daemon=True).start()
        with tempfile.TemporaryDirectory(prefix="ab-example-") as directory:
            properties = {"origin": f"http://127.0.0.1:{origin.server_port}", "port": "0"}
            module = ActiveCdn()
            module.configure(Context("ActiveCdn", "1.0.0", "site", properties,
                                     address="127.0.0.1", directory=Path(directory)))  # fmt: skip
            module.start()
            url = f"http://{module.status()['serves']}/film"
            with httpx.Client(trust_env=False, timeout=10) as client:
                with ThreadPoolExecutor(5) as users:
                    came = list(users.map(get, [client] * 5, [url] * 5))
                late = get(client, url)
            module.stop()
        origin.shutdown()
    print(f"First bytes after {max(first for first, _, _ in came) * 1000:.0f} ms, "
          f"the last after {max(last for _, last, _ in came) * 1000:.0f} ms; "
          f"one who comes later has all after {late[1] * 1000:.0f} ms.")  # fmt: skip
    print(f"The origin was asked {SlowOrigin.asked} time for {len(came) + 1} users.")
    whole = all(count == PARTS * len(PART) for *_, count in [*came, late])
    early = all(first < last / 2 for first, last, _ in came)
    return 0 if whole and early and SlowOrigin.asked == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
