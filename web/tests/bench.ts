import { IDLE, step } from "../src/recovery";
import type { Command, Event, Recovery } from "../src/recovery";

/** A clock and a record of commands round the pure function. */
export class Bench {
  state: Recovery = IDLE;
  now = 0;
  log: Command[] = [];

  send(event: Event): Command[] {
    const [state, commands] = step(this.state, event, this.now);
    this.state = state;
    this.log.push(...commands);
    return [...commands];
  }

  counters(id: number, packets: number, frames = packets, watched = true) {
    return this.send({ kind: "counters", id, packets, frames, watched });
  }

  refuse(id: number, status: number | null, chosen = false) {
    return this.send({ kind: "refused", id, status, chosen });
  }

  /** Ticks every 50 ms until something happens; the time that took. */
  untilCommand(limit = 20_000): [number, Command[]] {
    const from = this.now;
    while (this.now - from < limit) {
      this.now += 50;
      const commands = this.send({ kind: "tick" });
      if (commands.length) return [this.now - from, commands];
    }
    return [Infinity, []];
  }

  playing(): this {
    this.send({ kind: "open" });
    this.now += 100;
    this.counters(1, 10);
    this.send({ kind: "frame", id: 1 });
    this.log = [];
    return this;
  }
}
