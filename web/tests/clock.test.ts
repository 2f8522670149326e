import { describe, expect, it } from "vitest";
import { COLUMNS, WRAP, decodeClock, delaySince } from "../src/clock";

type Cells = readonly [boolean[], boolean[]];

function cellsOf(epochMs: number): Cells {
  const value = Math.floor(epochMs) % WRAP;
  const upper = [true, false];
  for (let bit = 23; bit >= 0; bit--) upper.push(Math.floor(value / 2 ** bit) % 2 === 1);
  return [upper, upper.map((cell) => !cell)];
}

function paint(cells: Cells, width: number, height: number, white = 255, black = 0) {
  const data = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const row = cells[y < height / 2 ? 0 : 1];
      const level = row[Math.floor((x * COLUMNS) / width)] ? white : black;
      data.fill(level, (y * width + x) * 4, (y * width + x) * 4 + 3);
    }
  }
  return { width, height, data };
}

describe("decodeClock", () => {
  const times = [0, 1, WRAP - 1, WRAP, 1_795_000_123_456.9, 0xaaaaaa, 0x555555];
  it.each(times)("reads %d back", (time) => {
    expect(decodeClock(paint(cellsOf(time), 208, 16))).toBe(Math.floor(time) % WRAP);
  });

  it.each([[26, 2], [260, 16], [520, 32], [1040, 64], [1560, 96], [347, 21]])(
    "reads a strip of %d by %d pixels",
    (width, height) => {
      expect(decodeClock(paint(cellsOf(123_456_789), width, height))).toBe(123_456_789 % WRAP);
    },
  );

  it("reads a washed-out strip, with noise", () => {
    const strip = paint(cellsOf(9_876_543), 208, 16, 190, 70);
    for (let i = 0; i < strip.data.length; i++) strip.data[i]! += ((i * 7919) % 41) - 20;
    expect(decodeClock(strip)).toBe(9_876_543);
  });

  it("takes luma, not one colour", () => {
    const strip = paint(cellsOf(77), 208, 16, 255, 0);
    for (let i = 2; i < strip.data.length; i += 4) strip.data[i] = 255;
    expect(decodeClock(strip)).toBe(77);
  });

  it("wants every pair complementary", () => {
    for (let column = 0; column < COLUMNS; column++) {
      const [upper, lower] = cellsOf(5_000_000);
      lower[column] = upper[column]!;
      expect(decodeClock(paint([upper, lower], 208, 16))).toBeNull();
    }
  });

  it("wants the two marks in front", () => {
    const [upper, lower] = cellsOf(5_000_000);
    expect(decodeClock(paint([lower, upper], 208, 16))).toBeNull();
  });

  it("finds none in a plain picture or in too few pixels", () => {
    expect(decodeClock({ width: 208, height: 16, data: new Uint8ClampedArray(208 * 64) })).toBeNull();
    expect(decodeClock({ width: 20, height: 2, data: new Uint8ClampedArray(160) })).toBeNull();
  });
});

describe("delaySince", () => {
  const epoch = 1_795_000_123_456.75;
  it("is the time between", () => expect(delaySince((epoch - 180) % WRAP, epoch)).toBeCloseTo(180, 3));
  it("survives the wrap", () => expect(delaySince(WRAP - 100, 5 * WRAP + 50)).toBe(150));
  it("goes a little below zero", () => expect(delaySince(20, 5 * WRAP + 5)).toBe(-15));
});
