/** Turns the counters of getStats into the few numbers that a viewer can read. Pure. */

export interface Counters {
  /** Milliseconds, performance.now(). */
  at: number;
  videoPackets: number;
  packets: number;
  lost: number;
  bytes: number;
  frames: number;
  width: number;
  height: number;
  /** Seconds of buffering and decoding, summed over all frames that left the buffer. */
  bufferSeconds: number;
  bufferFrames: number;
  rttSeconds: number | null;
}

export interface Figures {
  bitrateKbps: number | null;
  lossPercent: number | null;
  fps: number | null;
  width: number;
  height: number;
  rttMs: number | null;
  /** Jitter buffer + decoding + half a round trip: what a browser knows without a clock. */
  estimatedDelayMs: number | null;
}

interface Entry {
  [key: string]: unknown;
}

interface Report {
  forEach(visit: (entry: Entry) => void): void;
}

function num(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

export function readCounters(report: Report, at: number): Counters {
  const counters: Counters = {
    at,
    videoPackets: 0,
    packets: 0,
    lost: 0,
    bytes: 0,
    frames: 0,
    width: 0,
    height: 0,
    bufferSeconds: 0,
    bufferFrames: 0,
    rttSeconds: null,
  };
  report.forEach((entry) => {
    if (entry.type === "inbound-rtp") {
      counters.packets += num(entry.packetsReceived);
      counters.lost += num(entry.packetsLost);
      counters.bytes += num(entry.bytesReceived);
      if (entry.kind !== "video") return;
      counters.videoPackets += num(entry.packetsReceived);
      counters.frames = num(entry.framesDecoded);
      counters.width = num(entry.frameWidth);
      counters.height = num(entry.frameHeight);
      counters.bufferSeconds = num(entry.jitterBufferDelay) + num(entry.totalDecodeTime);
      counters.bufferFrames = num(entry.jitterBufferEmittedCount);
    } else if (entry.type === "candidate-pair" && entry.nominated === true) {
      if (typeof entry.currentRoundTripTime === "number") {
        counters.rttSeconds = entry.currentRoundTripTime;
      }
    }
  });
  return counters;
}

const SHORT_MS = 1000;
const LONG_MS = 5000;

/** Rates over a moving window, of one peer connection: totals of two connections do not mix. */
export class Meter {
  #history: Counters[] = [];

  push(counters: Counters): void {
    this.#history.push(counters);
    // One entry older than the long window stays, as its far end.
    while (this.#history.length > 2 && counters.at - this.#history[1]!.at >= LONG_MS) {
      this.#history.shift();
    }
  }

  figures(): Figures | null {
    const last = this.#history.at(-1);
    if (!last) return null;
    const short = this.#history.findLast((c) => last.at - c.at >= SHORT_MS) ?? this.#history[0]!;
    const long = this.#history[0]!;
    const seconds = (last.at - short.at) / 1000;
    const received = last.packets - long.packets;
    // A packet that comes after all is taken back from packetsLost: the difference may be negative.
    const lost = Math.max(0, last.lost - long.lost);
    const buffered = last.bufferFrames - short.bufferFrames;
    const halfTrip = last.rttSeconds === null ? 0 : last.rttSeconds / 2;
    return {
      bitrateKbps: seconds > 0 ? ((last.bytes - short.bytes) * 8) / 1000 / seconds : null,
      lossPercent: received + lost > 0 ? (100 * lost) / (received + lost) : null,
      fps: seconds > 0 ? (last.frames - short.frames) / seconds : null,
      width: last.width,
      height: last.height,
      rttMs: last.rttSeconds === null ? null : last.rttSeconds * 1000,
      estimatedDelayMs:
        buffered > 0
          ? ((last.bufferSeconds - short.bufferSeconds) / buffered + halfTrip) * 1000
          : null,
    };
  }
}
