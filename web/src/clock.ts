/**
 * Anabranch's machine-readable clock: a strip at the top left corner of the picture that carries the
 * time at which the picture was made. Pure: works on RGBA pixels of the strip alone.
 *
 * Layout: the strip is 26/32 of the picture wide and 4/45 of it high, 26 columns by 2 rows of equal
 * cells. Upper row: cell 0 white, cell 1 black, cells 2..25 the 24 low bits of the time in
 * milliseconds, most significant first, white = 1. Lower row: the exact complement of the upper one.
 */

export const COLUMNS = 26;
export const ROWS = 2;
export const STRIP_WIDTH = 26 / 32;
export const STRIP_HEIGHT = 4 / 45;
/** The clock counts milliseconds modulo this number: it wraps every 4.66 hours. */
export const WRAP = 2 ** 24;
const THRESHOLD = 128;

/** What decode needs of an ImageData, so that tests need no browser. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: ArrayLike<number>;
}

/** Mean luma (BT.601) of the few pixels round the centre of one cell. */
function cellLuma(strip: Pixels, column: number, row: number): number {
  const cellWidth = strip.width / COLUMNS;
  const cellHeight = strip.height / ROWS;
  // A quarter of the cell to each side of the centre: far from the edges, which the codec smears.
  const left = Math.floor((column + 0.375) * cellWidth);
  const right = Math.max(left + 1, Math.ceil((column + 0.625) * cellWidth));
  const top = Math.floor((row + 0.375) * cellHeight);
  const bottom = Math.max(top + 1, Math.ceil((row + 0.625) * cellHeight));
  let sum = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const at = (y * strip.width + x) * 4;
      sum += 0.299 * strip.data[at]! + 0.587 * strip.data[at + 1]! + 0.114 * strip.data[at + 2]!;
    }
  }
  return sum / ((right - left) * (bottom - top));
}

/** The clock's value (milliseconds modulo 2^24), or null where the pixels carry no valid clock. */
export function decodeClock(strip: Pixels): number | null {
  if (strip.width < COLUMNS || strip.height < ROWS) return null;
  let value = 0;
  for (let column = 0; column < COLUMNS; column++) {
    const upper = cellLuma(strip, column, 0) >= THRESHOLD;
    const lower = cellLuma(strip, column, 1) >= THRESHOLD;
    if (upper === lower) return null;
    if (column === 0 && !upper) return null;
    if (column === 1 && upper) return null;
    // Not `<<`: kept in the range of exact numbers without thinking about the sign bit.
    if (column >= 2) value = value * 2 + (upper ? 1 : 0);
  }
  return value;
}

/**
 * Milliseconds from the clock's value to `epochMs`. The clock wraps, so the answer is the difference
 * nearest to zero: a little below zero where the two clocks disagree by more than the true delay.
 */
export function delaySince(clock: number, epochMs: number): number {
  const difference = (((epochMs - clock) % WRAP) + WRAP) % WRAP;
  return difference >= WRAP / 2 ? difference - WRAP : difference;
}
