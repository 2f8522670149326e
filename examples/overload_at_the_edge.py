"""Calls for a SIP server meet the Overload Control module, without a network and without root.

    1,000 new calls a second --- the module, 200 may pass --- a SIP server

Half way, 100 calls a second end (BYE): they come before the new ones.
"""

import sys
from ipaddress import IPv4Address

import dpkt

from anabranch.services.module import Context
from anabranch.services.modules.overload.overload import OverloadControl
from anabranch.services.testkit import Report, TestKit

CALLER, SERVER = IPv4Address("192.0.2.9"), IPv4Address("198.51.100.1")


class Clock:
    """Seconds, stepped by hand: the example takes no four seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def packet(method: str, number: int, to_tag: str = "") -> bytes:
    message = (
        f"{method} sip:service@example.com SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {CALLER}:5060;branch=z9hG4bK{method}{number}\r\n"
        f"From: <sip:caller@example.com>;tag={number}\r\nTo: <sip:service@example.com>{to_tag}\r\n"
        f"Call-ID: {number}@{CALLER}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    )
    udp = dpkt.udp.UDP(sport=5060, dport=5060, ulen=8 + len(message), data=message.encode())
    return bytes(
        dpkt.ip.IP(src=CALLER.packed, dst=SERVER.packed, p=17, len=28 + len(message), data=udp)
    )


def two_seconds(kit: TestKit, clock: Clock, first: int, *, ending: bool) -> Report:
    """Have 2,000 calls begin within two seconds; ``ending``: and 200 older ones end."""
    whole = Report()
    for step in range(200):
        calls = [packet("INVITE", first + 10 * step + call) for call in range(10)]
        ends = [packet("BYE", first + step, ";tag=old")] if ending else []
        clock.now += 0.01
        report = kit.run(calls + ends)
        whole.out += report.out
        whole.errors += report.errors
    return whole


def passed(report: Report, method: bytes) -> int:
    return sum(method in out for out in report.out)


def main() -> int:
    clock = Clock()
    context = Context("OverloadControl", "1.0.0", "itsp", {"rate": "200", "validity": "0"})
    kit = TestKit(OverloadControl(clock), context=context)
    calm = two_seconds(kit, clock, 0, ending=False)
    print(f"2,000 calls in two seconds: {passed(calm, b'INVITE sip')} pass, "
          f"{passed(calm, b'SIP/2.0 503')} are answered with 503.")  # fmt: skip
    busy = two_seconds(kit, clock, 10_000, ending=True)
    print(f"As many, and 200 that end: {passed(busy, b'BYE sip')} of these pass, "
          f"and {passed(busy, b'INVITE sip')} new ones.")  # fmt: skip
    kit.close()
    right = 400 <= passed(calm, b"INVITE sip") <= 420 and passed(busy, b"BYE sip") == 200
    return 0 if right and not calm.errors + busy.errors else 1


if __name__ == "__main__":
    sys.exit(main())
