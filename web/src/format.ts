/** How numbers and states read. Pure. */

import type { ChannelState, Rendition } from "./channels";

const STATES: Record<ChannelState, string> = {
  live: "Live",
  slate: "Waiting for source",
  starting: "Starting",
  failed: "Failed",
};

/** A state that a newer director may know and this page does not is shown as it is. */
export function stateLabel(state: string): string {
  return STATES[state as ChannelState] ?? state;
}

/** Nothing to say of what everybody may see. */
export function visibilityLabel(visibility: string): string {
  return visibility === "public" || !visibility ? "" : capitalised(visibility);
}

export function viewersLabel(viewers: number): string {
  return viewers === 1 ? "1 viewer" : `${viewers} viewers`;
}

export function bitrateLabel(kbps: number): string {
  return kbps >= 1000 ? `${(kbps / 1000).toFixed(1)} Mb/s` : `${Math.round(kbps)} kb/s`;
}

export function percentLabel(percent: number): string {
  // A loss that is there must not read as none.
  return percent > 0 && percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(1)} %`;
}

export function capitalised(name: string): string {
  return name.slice(0, 1).toUpperCase() + name.slice(1);
}

export function renditionLabel(rendition: Rendition): string {
  return `${capitalised(rendition.name)} ${rendition.width}×${rendition.height}`;
}

/** One or two letters that stand for a channel where there is no picture of it; "T10" for Test channel 10. */
export function monogram(title: string): string {
  const words = title.match(/[\p{L}\p{N}]+/gu) ?? [];
  const last = words.at(-1) ?? "";
  const letters = words.length > 1 ? [words[0]!, last] : [last];
  const short = (word: string) => (/^\p{N}{1,3}$/u.test(word) ? word : ([...word][0] ?? ""));
  return letters.map(short).join("").toUpperCase();
}

/** A hue that stays the same for a name (FNV-1a; spread so that test1 and test2 differ visibly). */
export function hueOf(name: string): number {
  let hash = 0x811c9dc5;
  for (const letter of name) hash = Math.imul(hash ^ letter.codePointAt(0)!, 0x01000193) >>> 0;
  return (hash >>> 7) % 360;
}

export function median(values: readonly number[]): number | null {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
