/**
 * Keeps a channel playing: carries out what recovery.ts decides, with WHEP sessions on a screen.
 */

import { authorization } from "./credentials";
import type { Opening } from "./opening";
import { IDLE, step } from "./recovery";
import type { Command, Event, Recovery } from "./recovery";
import { Screen } from "./screen";
import { Meter, readCounters } from "./stats";
import type { Counters, Figures } from "./stats";
import { whepPath } from "./target";
import { WhepSession } from "./whep";
import { Follower, same } from "./wish";
import type { Wish } from "./wish";

const POLL_MS = 250;
const NO_MEDIA = "The server answers, but no picture arrives. A firewall may be holding back UDP.";

export type Phase = "connecting" | "playing" | "recovering" | "ended";

interface Seat {
  readonly session: WhepSession;
  readonly meter: Meter;
  readonly follower: Follower;
  counters: Counters | null;
}

export class Player {
  /** Another phase, or another detail to show with it. */
  onphase: (() => void) | null = null;
  /** Another picture: its size, its sound or its rendition may have changed. */
  onshow: (() => void) | null = null;
  onpoll: (() => void) | null = null;

  readonly screen: Screen;
  /** What the viewer wishes to see; it is what is seen unless something is under way. */
  wish: Wish;
  /** The server's words about the last refusal. */
  detail: string | null = null;
  firstFrameAt: number | null = null;
  reconnects = 0;
  /** Changes of channel or rendition over a connection that there was. */
  changes = 0;
  marks: Record<string, number> = {};

  #state: Recovery = IDLE;
  #seats = new Map<number, Seat>();
  #opening: Opening | null;
  #openedAt: number | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    videos: readonly [HTMLVideoElement, HTMLVideoElement],
    /** What the page shows, or is about to show, when the player is made: the first attempt. */
    opening: Opening,
  ) {
    const { target } = opening;
    this.screen = new Screen(videos);
    this.wish = { channel: target.channel, rendition: target.rendition };
    this.#opening = opening;
  }

  start(): void {
    this.#dispatch({ kind: "open" });
    setInterval(() => void this.#poll(), POLL_MS);
    addEventListener("online", () => this.#dispatch({ kind: "hurry" }));
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#dispatch({ kind: "hurry" });
    });
    addEventListener("pagehide", () => this.#leave());
    // Out of the back/forward cache: the page is as it was, its connections are not.
    addEventListener("pageshow", (event) => event.persisted && this.reopen());
  }

  /** Begin again after an end. */
  reopen(): void {
    this.#dispatch({ kind: "open" });
  }

  get phase(): Phase {
    if (this.#state.ended) return "ended";
    const { showing, attempt, retry } = this.#state;
    if (!showing) return "connecting";
    const reason = (attempt ?? retry)?.reason ?? "switch";
    return reason === "switch" ? "playing" : "recovering";
  }

  get #current(): Seat | undefined {
    return this.#seats.get(this.#state.showing?.id ?? -1);
  }

  get figures(): Figures | null {
    return this.#current?.meter.figures() ?? null;
  }

  get counters(): Counters | null {
    return this.#current?.counters ?? null;
  }

  get connection(): RTCPeerConnection | null {
    return this.#current?.session.pc ?? null;
  }

  /** Where events about what is on screen are asked for; null where there are none. */
  get events(): string | null {
    return this.#current?.session.events ?? null;
  }

  get hasAudio(): boolean {
    return this.#current?.session.hasAudio ?? false;
  }

  /** When the newest change was asked for and granted; null before the first. */
  get changeMarks(): { asked: number; granted: number } | null {
    const marks = this.#current?.session.changeMarks;
    return marks?.asked ? { ...marks } : null;
  }

  /** See something else: over the connection that there is, or else over another. */
  choose(wish: Wish): void {
    if (same(wish, this.wish)) return;
    this.wish = wish;
    if (this.phase === "ended") return this.reopen();
    const seat = this.#current;
    const busy = this.phase !== "playing" || this.#state.attempt || this.#state.retry;
    if (busy || !seat?.session.canChange) {
      return this.#dispatch({ kind: "switch" });
    }
    void this.#change(seat, wish);
  }

  async #change(seat: Seat, wish: Wish): Promise<void> {
    const done = await seat.follower.follow(wish);
    if (done === null || seat !== this.#current) return;
    if (done) {
      this.changes++;
      this.onshow?.();
    } else if (!this.#state.attempt) {
      this.#dispatch({ kind: "switch" });
    }
  }

  #dispatch(event: Event): void {
    const now = performance.now();
    const before = this.phase;
    const failures = this.#state.failures;
    const [state, commands] = step(this.#state, event, now);
    this.#state = state;
    const timedOut = event.kind === "tick" && state.failures > failures;
    if (timedOut) this.detail = NO_MEDIA;
    for (const command of commands) this.#carryOut(command);
    if (state === this.#state) {
      clearTimeout(this.#timer);
      if (state.retry) {
        const wait = Math.max(0, state.retry.at - now);
        // The poll alone would round the short pauses up to its own interval.
        this.#timer = setTimeout(() => this.#dispatch({ kind: "tick" }), wait + 1);
      }
    }
    if (timedOut || this.phase !== before) this.onphase?.();
  }

  #carryOut(command: Command): void {
    switch (command.do) {
      case "connect":
        return this.#connect(command.id);
      case "drop":
        return this.#drop(command.id);
      case "show":
        return this.#show(command.id);
      case "revert":
        this.wish = this.#current?.follower.shown ?? this.wish;
        return this.onshow?.();
      case "forget":
        this.wish = { ...this.wish, rendition: null };
    }
  }

  #connect(id: number): void {
    const { wish } = this;
    const opening = this.#opening;
    this.#opening = null;
    const session =
      opening?.session ?? new WhepSession(whepPath(wish.channel, wish.rendition), authorization(wish.channel));
    const follower = new Follower(session, wish);
    this.#seats.set(id, { session, meter: new Meter(), follower, counters: null });
    session.onlost = () => this.#dispatch({ kind: "lost", id });
    void session.outcome.then((outcome) => {
      // Of a session that was given up in the meantime nobody wants to hear.
      if (outcome.ok || !this.#seats.has(id)) return;
      this.detail = outcome.detail;
      this.#dispatch({ kind: "refused", id, status: outcome.status, chosen: wish.rendition !== null });
      this.onphase?.();
    });
    const ready = () => this.#dispatch({ kind: "frame", id });
    if (!opening?.session) return this.screen.prepare(session.stream, ready);
    void opening.shown.then((at) => {
      this.#openedAt = at;
      ready();
    });
  }

  #show(id: number): void {
    const seat = this.#seats.get(id);
    if (!seat) return;
    if (this.firstFrameAt === null) {
      this.firstFrameAt = this.#openedAt ?? performance.now();
      this.marks = { ...this.marks, ...seat.session.marks, firstFrame: this.firstFrameAt };
    } else {
      this.reconnects++;
    }
    this.detail = null;
    this.screen.swap();
    this.onshow?.();
  }

  #drop(id: number): void {
    const seat = this.#seats.get(id);
    if (!seat) return;
    this.#seats.delete(id);
    seat.follower.stop();
    seat.session.close();
    this.screen.clear(seat.session.stream);
  }

  async #poll(): Promise<void> {
    const watched = !document.hidden && !this.screen.paused;
    await Promise.all(
      [...this.#seats].map(async ([id, seat]) => {
        const report = await seat.session.pc?.getStats().catch(() => null);
        if (!report || !this.#seats.has(id)) return;
        const counters = readCounters(report, performance.now());
        seat.counters = counters;
        seat.meter.push(counters);
        const { videoPackets: packets, frames } = counters;
        this.#dispatch({ kind: "counters", id, packets, frames, watched });
        // A hidden page presents no frames; what is decoded will have to do.
        if (document.hidden && frames > 0) this.#dispatch({ kind: "frame", id });
      }),
    );
    this.#dispatch({ kind: "tick" });
    this.onpoll?.();
  }

  #leave(): void {
    for (const id of [...this.#seats.keys()]) this.#drop(id);
    this.#state = { ...IDLE, lastId: this.#state.lastId, ended: true };
  }
}
