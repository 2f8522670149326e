/** `window.anabranch`: what benchmarks and tests may ask the watch page. */

import type { DelayReader } from "./delay";
import type { Phase, Player } from "./player";
import type { DirectorClock } from "./time";

export interface Anabranch {
  /** The present state and rates; null where nothing is known yet. */
  stats(): {
    channel: string;
    rendition: string | null;
    phase: Phase;
    delayMs: number | null;
    /** Whether delayMs was read off the picture's clock (else estimated). */
    delayMeasured: boolean;
    clockOffsetMs: number | null;
    bitrateKbps: number | null;
    lossPercent: number | null;
    fps: number | null;
    rttMs: number | null;
    width: number;
    height: number;
    /** Totals of the connection on screen. */
    packets: number;
    packetsLost: number;
    frames: number;
    muted: boolean;
    paused: boolean;
  };
  /** performance.now() of the first requestVideoFrameCallback; null before. */
  readonly firstFrameAt: number | null;
  /**
   * performance.now() of the steps to the first picture: script, created, posted, answered,
   * connected, firstFrame. Complete once firstFrameAt is not null.
   */
  readonly marks: Record<string, number>;
  /** Pictures that took the place of an earlier one: recoveries and changes of rendition. */
  readonly reconnects: number;
  /** Changes of channel or rendition over a connection that there was. */
  readonly changes: number;
  /** performance.now() of the newest change's request and of its answer; null before the first. */
  readonly changeMarks: { asked: number; granted: number } | null;
  /** The connection of the picture on screen; null before the first. */
  readonly connection: RTCPeerConnection | null;
  /** Delay in ms of the frame on screen now, by the picture's clock; null where it has none. */
  readClock(): number | null;
  /**
   * Delays in ms of n successive presented frames: each read inside requestVideoFrameCallback, at
   * performance.timeOrigin + performance.now(), with the director's clock offset (measured first
   * if need be) applied. Rejects if no frame carries a clock for 5 s.
   */
  sampleDelays(n: number): Promise<number[]>;
}

declare global {
  interface Window {
    anabranch: Anabranch;
  }
}

export function expose(
  player: Player,
  delays: DelayReader,
  clock: DirectorClock,
): void {
  window.anabranch = {
    stats() {
      const figures = player.figures;
      const counters = player.counters;
      const delay = delays.present;
      return {
        channel: player.wish.channel,
        rendition: player.wish.rendition,
        phase: player.phase,
        delayMs: delay?.ms ?? null,
        delayMeasured: delay?.measured ?? false,
        clockOffsetMs: clock.offset,
        bitrateKbps: figures?.bitrateKbps ?? null,
        lossPercent: figures?.lossPercent ?? null,
        fps: figures?.fps ?? null,
        rttMs: figures?.rttMs ?? null,
        width: player.screen.front.videoWidth,
        height: player.screen.front.videoHeight,
        packets: counters?.packets ?? 0,
        packetsLost: counters?.lost ?? 0,
        frames: counters?.frames ?? 0,
        muted: player.screen.muted,
        paused: player.screen.paused,
      };
    },
    get firstFrameAt() {
      return player.firstFrameAt;
    },
    get marks() {
      return { ...player.marks };
    },
    get reconnects() {
      return player.reconnects;
    },
    get changes() {
      return player.changes;
    },
    get changeMarks() {
      return player.changeMarks;
    },
    get connection() {
      return player.connection;
    },
    readClock: () => delays.read(),
    sampleDelays: (n) => delays.sample(n),
  };
}
