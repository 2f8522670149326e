/** Keeps a stream published: connects, and connects again when the connection is lost. */

import { Listener, pauseAfter, readSent, verdictOn, whipPath } from "./sending";
import type { Layer, Sent } from "./sending";
import { WhipSession } from "./whip";

const UP_MS = 10_000;
const NO_MEDIA = "The server answers, but no connection comes about. A firewall may be holding back UDP.";

export type Phase = "idle" | "connecting" | "live" | "waiting";

export class Publisher {
  phase: Phase = "idle";
  /** Why it is not on the air, in words. */
  trouble: string | null = null;
  onchange: (() => void) | null = null;

  #session: WhipSession | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #wasLive = false;
  #failures = 0;
  #listener = new Listener();
  #what: { channel: string; key: string; stream: MediaStream; layers: readonly Layer[] } | null = null;

  start(channel: string, key: string, stream: MediaStream, layers: readonly Layer[] = []): void {
    this.#what = { channel, key, stream, layers };
    this.#wasLive = false;
    this.#failures = 0;
    this.#connect();
  }

  stop(): void {
    this.#end("idle", null);
  }

  /** Figures of now; to be asked for once a second, since this is also how silence is noticed. */
  async sent(): Promise<Sent | null> {
    const session = this.#session;
    const report = await session?.pc?.getStats().catch(() => null);
    if (!report || session !== this.#session || this.phase !== "live") return null;
    const sent = readSent(report, performance.now());
    if (this.#listener.silent(sent)) this.#retry("The server is not heard any more.");
    return sent;
  }

  #connect(): void {
    const what = this.#what;
    if (!what) return;
    this.#drop();
    const session = new WhipSession(whipPath(what.channel), what.key, what.stream, what.layers);
    this.#session = session;
    session.onup = () => {
      clearTimeout(this.#timer);
      this.#wasLive = true;
      this.#failures = 0;
      this.#listener = new Listener();
      this.#enter("live", null);
    };
    session.onlost = () => this.#retry("The connection is lost.");
    void session.outcome.then((outcome) => {
      // Of a session that was given up in the meantime nobody wants to hear.
      if (outcome.ok || session !== this.#session) return;
      const verdict = verdictOn(outcome.status, outcome.detail, this.#wasLive);
      if (verdict.again) this.#retry(verdict.text);
      else this.#end("idle", verdict.text);
    });
    this.#timer = setTimeout(() => this.#retry(NO_MEDIA), UP_MS);
    this.#enter("connecting", this.trouble);
  }

  #retry(trouble: string): void {
    this.#drop();
    this.#timer = setTimeout(() => this.#connect(), pauseAfter(this.#failures++));
    this.#enter("waiting", trouble);
  }

  #end(phase: Phase, trouble: string | null): void {
    this.#what = null;
    this.#drop();
    this.#enter(phase, trouble);
  }

  #drop(): void {
    clearTimeout(this.#timer);
    const session = this.#session;
    this.#session = null;
    session?.close();
  }

  #enter(phase: Phase, trouble: string | null): void {
    this.phase = phase;
    this.trouble = trouble;
    this.onchange?.();
  }
}
