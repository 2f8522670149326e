/** What the page of NetMonitor makes of the counters. Pure. */

export interface Seen {
  node: string;
  ttl: number;
  packets: number;
  rate: number;
}

/** So many measurements fill a chart. */
export const CHART_POINTS = 60;

export const numbers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const small = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** A rate for people: one decimal only where it says something. */
export function rateWords(rate: number): string {
  return rate < 10 ? small.format(rate) : numbers.format(rate);
}

/** "1 flow", "2 flows". */
export function counted(count: number, word: string): string {
  return `${numbers.format(count)} ${word}${count === 1 ? "" : "s"}`;
}

/** The lines of a chart, broken where nothing was measured; the newest point is at the right. */
export function chartLines(history: readonly (number | null)[], width: number, height: number): [number, number][][] {
  const points = history.slice(-CHART_POINTS);
  const most = Math.max(1, ...points.map((rate) => rate ?? 0));
  const step = width / (CHART_POINTS - 1);
  const lines: [number, number][][] = [];
  let line: [number, number][] = [];
  points.forEach((rate, index) => {
    if (rate === null) {
      if (line.length) lines.push(line);
      line = [];
      return;
    }
    line.push([width - (points.length - 1 - index) * step, height - (rate / most) * (height - 3) - 1]);
  });
  if (line.length) lines.push(line);
  return lines;
}

/** What one node saw of a flow: all TTLs of it, the packets together. */
export function atNode(seen: readonly Seen[], node: string): { rate: number; packets: number; ttls: string } | null {
  const here = seen.filter((each) => each.node === node);
  if (!here.length) return null;
  return {
    rate: here.reduce((sum, { rate }) => sum + rate, 0),
    packets: here.reduce((sum, { packets }) => sum + packets, 0),
    ttls: here
      .map(({ ttl }) => ttl)
      .sort((a, b) => b - a)
      .join(", "),
  };
}
