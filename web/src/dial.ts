/** Choosing among numbered channels by keys. Pure; times are milliseconds. */

/** How long a further digit is waited for. */
export const DIGIT_MS = 1000;

const STEPS: Record<string, 1 | -1> = {
  ArrowUp: 1,
  ArrowRight: 1,
  ChannelUp: 1,
  ArrowDown: -1,
  ArrowLeft: -1,
  ChannelDown: -1,
};

/** The way that a key leads through the channels; null for all other keys. */
export function stepOf(key: string): 1 | -1 | null {
  return STEPS[key] ?? null;
}

/** The channel after or before one, round and round; null where there is no other. */
export function neighbour<T>(list: readonly T[], at: T | undefined, by: 1 | -1): T | null {
  if (list.length < 2) return null;
  const index = at === undefined ? -1 : list.indexOf(at);
  if (index < 0) return list[by > 0 ? 0 : list.length - 1] ?? null;
  return list[(index + by + list.length) % list.length] ?? null;
}

/**
 * The channels to either side of one, round and round, and that one among them: at most `reach` each way. All
 * of them, in their order, where there are no more.
 */
export function around<T>(list: readonly T[], at: number, reach: number): readonly T[] {
  const width = 2 * reach + 1;
  if (list.length <= width) return list;
  return Array.from({ length: width }, (_, i) => list[(at - reach + i + list.length) % list.length]!);
}

export interface Dialled {
  readonly number: number;
  readonly at: number;
}

/** What is dialled after one more digit; null where that is no channel's number. */
export function dial(before: Dialled | null, digit: number, count: number, now: number): Dialled | null {
  const goesOn = before !== null && now - before.at < DIGIT_MS;
  const longer = goesOn ? before.number * 10 + digit : digit;
  if (longer >= 1 && longer <= count) return { number: longer, at: now };
  return digit >= 1 && digit <= count ? { number: digit, at: now } : null;
}

/** Whether no further digit could follow, so that there is nothing to wait for. */
export function isWhole(dialled: Dialled, count: number): boolean {
  return dialled.number * 10 > count;
}
