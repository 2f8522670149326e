"""What an RTP seat is sent, as a session description (SDP, RFC 8866). Pure."""

from anabranch.channels.seats import PlainSeat
from anabranch.media.rendition import Format


def describe(seat: PlainSeat, form: Format) -> str:
    """Return the description that the receiver opens.

    H.264 in packetization mode 1 with its parameter sets before each key frame (RFC 6184), and
    Opus (RFC 7587). It says nothing of the channel, so that it stays true when that is changed.
    """
    picture, sound = seat.ports
    where = f"IN {'IP6' if ':' in seat.address else 'IP4'} {seat.address}"
    types = form.video_payload_type, form.audio_payload_type
    lines = [
        "v=0",
        f"o=- {round(seat.since)} 1 {where}",
        "s=Anabranch",
        f"c={where}",
        "t=0 0",
        "a=recvonly",
        f"m=video {picture} RTP/AVP {types[0]}",
        f"a=rtpmap:{types[0]} H264/90000",
        f"a=fmtp:{types[0]} packetization-mode=1",
        f"m=audio {sound} RTP/AVP {types[1]}",
        f"a=rtpmap:{types[1]} opus/48000/2",
        "",
    ]
    return "\r\n".join(lines)
