/** Glass-to-glass delay: off the picture's own clock if it has one, else estimated. */

import { delaySince } from "./clock";
import { median } from "./format";
import { readStrip } from "./pixels";
import type { Player } from "./player";
import { localEpoch } from "./time";
import type { DirectorClock } from "./time";

export interface Delay {
  readonly ms: number;
  /** false: worked out from the browser's counters, without what lies before the network. */
  readonly measured: boolean;
}

const KEPT = 4;

export class DelayReader {
  #recent: number[] = [];
  #pending = false;

  constructor(
    private readonly player: Player,
    private readonly clock: DirectorClock,
  ) {}

  /** Delay of the frame on screen at `epoch` (this browser's time), null where it has no clock. */
  read(epoch: number = localEpoch()): number | null {
    const value = readStrip(this.player.screen.front);
    return value === null ? null : delaySince(value, epoch + (this.clock.offset ?? 0));
  }

  /** Delays of n successive presented frames. Fails if for 5 s no frame carries a clock. */
  async sample(n: number): Promise<number[]> {
    await this.clock.measure();
    return new Promise((resolve, reject) => {
      const delays: number[] = [];
      let timer = 0;
      const giveUp = () => reject(new Error(`no clock in the picture after ${delays.length} samples`));
      const next = (now: number) => {
        const delay = this.read(performance.timeOrigin + now);
        if (delay !== null) {
          delays.push(delay);
          clearTimeout(timer);
          timer = setTimeout(giveUp, 5000);
        }
        if (delays.length < n) return this.player.screen.onceFrame(next);
        clearTimeout(timer);
        resolve(delays);
      };
      timer = setTimeout(giveUp, 5000);
      this.player.screen.onceFrame(next);
    });
  }

  /** One reading at the next frame; called at the rhythm of the display. */
  poll(): void {
    if (this.#pending || document.hidden) return;
    this.#pending = true;
    this.player.screen.onceFrame((now) => {
      this.#pending = false;
      const delay = this.read(performance.timeOrigin + now);
      if (delay === null) this.#recent = [];
      else this.#recent = [...this.#recent.slice(1 - KEPT), delay];
    });
  }

  forget(): void {
    this.#recent = [];
  }

  get present(): Delay | null {
    // Without the director's clock the difference of the two clocks would be shown as a delay.
    const measured = this.clock.offset === null ? null : median(this.#recent);
    if (measured !== null) return { ms: measured, measured: true };
    const estimated = this.player.figures?.estimatedDelayMs ?? null;
    return estimated === null ? null : { ms: estimated, measured: false };
  }
}
