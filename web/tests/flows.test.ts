/** What the page of NetMonitor says. */

import { describe, expect, it } from "vitest";
import { CHART_POINTS, atNode, chartLines, counted, rateWords } from "../src/flows";

describe("words", () => {
  it("have decimals where they say something", () => {
    expect(rateWords(0)).toBe("0");
    expect(rateWords(3.25)).toBe("3.3");
    expect(rateWords(1234.5)).toBe("1,235");
    expect(counted(1, "flow")).toBe("1 flow");
    expect(counted(12345, "packet")).toBe("12,345 packets");
  });
});

describe("a chart", () => {
  it("ends at the right, and at most fills the width", () => {
    const history = Array.from({ length: CHART_POINTS + 40 }, (_, index) => index);
    const [line] = chartLines(history, 100, 50);
    expect(line).toHaveLength(CHART_POINTS);
    expect(line![0]![0]).toBeCloseTo(0);
    expect(line!.at(-1)![0]).toBe(100);
    expect(line!.every(([, y]) => y >= 0 && y <= 50)).toBe(true);
  });
  it("is broken where nothing was measured", () => {
    expect(chartLines([1, 2, null, 3], 100, 50).map((line) => line.length)).toEqual([2, 1]);
    expect(chartLines([], 100, 50)).toEqual([]);
    expect(chartLines([null], 100, 50)).toEqual([]);
  });
});

describe("a flow at a node", () => {
  const seen = [
    { node: "a", ttl: 62, packets: 5, rate: 1 },
    { node: "a", ttl: 63, packets: 10, rate: 2 },
    { node: "b", ttl: 61, packets: 7, rate: 3 },
  ];
  it("is all its packets, whatever their TTL", () => {
    expect(atNode(seen, "a")).toEqual({ rate: 3, packets: 15, ttls: "63, 62" });
    expect(atNode(seen, "b")).toEqual({ rate: 3, packets: 7, ttls: "61" });
    expect(atNode(seen, "c")).toBeNull();
  });
});
