/** The offset between this browser's clock and the director's, for reading delays off the picture. */

const SAMPLES = 5;
const FRESH_MS = 60_000;

/** This browser's time, with more digits than Date.now() gives. */
export function localEpoch(): number {
  return performance.timeOrigin + performance.now();
}

interface Sample {
  roundTrip: number;
  offset: number;
}

/** Of several samples, the one with the shortest round trip has the least room for error. */
export function bestOffset(samples: readonly Sample[]): number | null {
  let best: Sample | null = null;
  for (const sample of samples) if (!best || sample.roundTrip < best.roundTrip) best = sample;
  return best ? best.offset : null;
}

async function sample(): Promise<Sample> {
  const before = localEpoch();
  const response = await fetch("/api/time", { cache: "no-store" });
  const headersAt = localEpoch();
  const { epoch_ms } = (await response.json()) as { epoch_ms: number };
  if (!response.ok || typeof epoch_ms !== "number") throw new Error("no time");
  return { roundTrip: headersAt - before, offset: epoch_ms - (before + headersAt) / 2 };
}

export class DirectorClock {
  #offset: number | null = null;
  #measuredAt = -Infinity;
  #running: Promise<void> | null = null;

  /** Milliseconds to add to localEpoch(); null until the director has answered. */
  get offset(): number | null {
    return this.#offset;
  }

  /** The director's time now; this browser's own as long as the director's is unknown. */
  now(): number {
    return localEpoch() + (this.#offset ?? 0);
  }

  /** Measures unless a measurement is running or fresh: clocks drift, but slowly. */
  measure(): Promise<void> {
    if (performance.now() - this.#measuredAt < FRESH_MS) return Promise.resolve();
    this.#running ??= this.#measure().finally(() => (this.#running = null));
    return this.#running;
  }

  async #measure(): Promise<void> {
    const samples: Sample[] = [];
    for (let i = 0; i < SAMPLES; i++) {
      try {
        samples.push(await sample());
      } catch {
        break;
      }
    }
    this.#offset = bestOffset(samples) ?? this.#offset;
    // After a failure try again soon, but not at every call.
    this.#measuredAt = performance.now() - (samples.length ? 0 : FRESH_MS - 5000);
  }
}
