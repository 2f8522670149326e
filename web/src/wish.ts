/**
 * What a viewer wishes to see, and how a session is brought to show it: one change at a time over the
 * connection that there is, always the newest wish.
 */

export interface Wish {
  readonly channel: string;
  readonly rendition: string | null;
}

export type Changed =
  | { ok: true; rendition: string; waits: boolean }
  /** retryMs: the server asks to wait as long; null: it cannot be done this way. */
  | { ok: false; retryMs: number | null };

/** A session that can show something else. */
export interface Changeable {
  change(wish: Wish): Promise<Changed>;
}

export function same(a: Wish, b: Wish): boolean {
  return a.channel === b.channel && a.rendition === b.rendition;
}

export class Follower {
  /** What the session shows, as far as the server has said. */
  shown: Wish;
  #wish: Wish;
  #running = false;
  #stopped = false;

  constructor(
    private readonly session: Changeable,
    shown: Wish,
    private readonly pause: (ms: number) => Promise<void> = (ms) =>
      new Promise((resolve) => setTimeout(resolve, ms)),
  ) {
    this.shown = this.#wish = shown;
  }

  /**
   * Follow a wish. Resolves to true once the newest wish is granted, to false if it cannot be, and
   * to null at once if a change is under way already: the call that made it tells the end.
   */
  async follow(wish: Wish): Promise<boolean | null> {
    this.#wish = wish;
    if (this.#running) return null;
    this.#running = true;
    // After a failure nobody knows what the server made of it.
    let certain = true;
    try {
      while (!this.#stopped && !(certain && same(this.#wish, this.shown))) {
        const asked = this.#wish;
        const changed = await this.session.change(asked);
        certain = changed.ok;
        if (changed.ok) this.shown = asked;
        else if (changed.retryMs !== null) await this.pause(changed.retryMs);
        else if (asked === this.#wish) return false;
      }
      return !this.#stopped;
    } finally {
      this.#running = false;
    }
  }

  /** The session is no longer wanted. */
  stop(): void {
    this.#stopped = true;
  }
}
