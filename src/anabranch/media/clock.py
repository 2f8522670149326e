"""A clock painted into the test picture that programs can read.

A strip at the top left corner, 26/32 of the picture's width and 4/45 of its height, is cut into
26 columns and 2 rows of equal cells. Upper row: cell 0 white, cell 1 black, cells 2 to 25 the 24
bits (most significant first, white is 1) of the milliseconds since the epoch modulo 2**24, which
is 4 h 39 min. The lower row is the complement of the upper: the guard by which a reader knows
that it sees a clock, whole and sharp.
"""

from collections.abc import Sequence

COLUMNS = 26
BITS = 24
PERIOD_MS = 1 << BITS
STRIP_WIDTH = 26 / 32
STRIP_HEIGHT = 4 / 45


def strip_size(width: int, height: int) -> tuple[int, int]:
    """Return the strip's size in whole, even pixels for a picture of ``width`` x ``height``."""
    return max(COLUMNS, 2 * round(width * STRIP_WIDTH / 2)), max(
        4, 2 * round(height * STRIP_HEIGHT / 2)
    )


def clock_filter(width: int, height: int, framerate: int) -> str:
    """Return ffmpeg filters that produce the strip, one frame in real time after another.

    The cells are painted when the frame is made, from the wall clock, at one pixel each; then
    they are enlarged without interpolation. Timestamps are milliseconds from zero.
    """
    strip = strip_size(width, height)
    bit = f"mod(floor(T*1000/pow(2,{COLUMNS - 1}-X)),2)"
    return (
        f"color=c=black:s={COLUMNS}x2:r={framerate},settb=1/1000,realtime,"
        "setpts='RTCTIME/1000',"
        f"geq=lum='if(eq(X,0),255*(1-Y),if(eq(X,1),255*Y,255*abs(Y-{bit})))':cb=128:cr=128,"
        f"setpts='N*1000/{framerate}',scale={strip[0]}:{strip[1]}:flags=neighbor"
    )


def read_clock(
    luma: bytes | Sequence[int], width: int, height: int, stride: int | None = None
) -> int | None:
    """Read the clock of a picture.

    Args:
        luma: the picture's brightness, 0 to 255, row after row; any scale of the original.
        stride: values from one row to the next; ``width`` if not given.

    Returns:
        Milliseconds since the epoch modulo :data:`PERIOD_MS`, or None if there is no clock.
    """
    stride = width if stride is None else stride
    cell = width * STRIP_WIDTH / COLUMNS
    row = height * STRIP_HEIGHT / 2
    if cell < 1 or row < 1 or len(luma) < stride * (height - 1) + width:
        return None
    value = 0
    for column in range(COLUMNS):
        x = int((column + 0.5) * cell)
        upper = luma[int(0.5 * row) * stride + x]
        lower = luma[int(1.5 * row) * stride + x]
        if abs(upper - lower) < 48:
            return None
        bit = upper > lower
        if column == 0 and not bit:
            return None
        if column == 1 and bit:
            return None
        if column >= 2:
            value = value << 1 | bit
    return value


def age_ms(clock: int, epoch_ms: float) -> float:
    """Return how old a clock reading is at ``epoch_ms``, in ms; negative if it is ahead."""
    half = PERIOD_MS / 2
    return (epoch_ms - clock + half) % PERIOD_MS - half
