/** What is said on the channel, as its producer sends it: over the picture, if the viewer wants it. */

import { byId, say } from "./dom";
import { remember, remembered } from "./memory";

const WANTED = "anabranch.captions";
const RETRY_MS = 5000;

export interface Caption {
  text: string;
  duration_s: number;
}

/** Reads a caption off an event's data; null: it is none. */
export function readCaption(data: string): Caption | null {
  try {
    const { text, duration_s } = JSON.parse(data) as Partial<Caption>;
    if (typeof text !== "string" || typeof duration_s !== "number" || !(duration_s >= 0)) return null;
    return { text, duration_s };
  } catch {
    return null;
  }
}

/**
 * Follows the event stream of the seat on screen, and only while captions are on: browsers allow six
 * connections to a server, and a stream takes one.
 */
export class Captions {
  readonly #box = byId("captions");
  readonly #button = byId("subtitles");
  #on = remembered(WANTED, false);
  #there = false;
  #place: string | null = null;
  #source: EventSource | null = null;
  #opening: AbortController | null = null;
  #clearing: ReturnType<typeof setTimeout> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    this.#button.onclick = () => this.toggle();
    this.#mark();
    document.addEventListener("visibilitychange", () => this.#renew());
    addEventListener("pagehide", () => this.#close());
  }

  /** The picture on screen is that of another seat, perhaps. */
  follow(place: string | null): void {
    if (place === this.#place) return;
    this.#place = place;
    this.clear();
    this.#renew();
  }

  /** Whether the channel has captions at all: else there is nothing to switch. */
  offer(there: boolean): void {
    if (there === this.#there) return;
    this.#there = there;
    this.#mark();
    this.#renew();
  }

  toggle(): void {
    if (!this.#there) return;
    this.#on = !this.#on;
    remember(WANTED, this.#on);
    this.#mark();
    this.#renew();
  }

  /** Another channel is asked for: what was said on this one is over. */
  clear(): void {
    clearTimeout(this.#clearing);
    say(this.#box, "");
  }

  #show({ text, duration_s }: Caption): void {
    clearTimeout(this.#clearing);
    say(this.#box, text);
    if (text) this.#clearing = setTimeout(() => this.clear(), duration_s * 1000);
  }

  #mark(): void {
    this.#button.hidden = !this.#there;
    this.#button.setAttribute("aria-pressed", String(this.#on));
  }

  #renew(): void {
    this.#close();
    if (!this.#on || !this.#there || document.hidden) this.clear();
    else if (this.#place !== null) void this.#open(this.#place);
  }

  async #open(place: string): Promise<void> {
    const opening = (this.#opening = new AbortController());
    try {
      const response = await fetch(place, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(["caption"]),
        signal: opening.signal,
      });
      const made = response.headers.get("location");
      if (!response.ok || made === null) throw new Error("no event stream");
      if (opening.signal.aborted) return;
      const source = (this.#source = new EventSource(new URL(made, response.url).href));
      source.addEventListener("caption", (event: MessageEvent<string>) => {
        const caption = readCaption(event.data);
        if (caption) this.#show(caption);
      });
      // The seat may be gone; the player has another one soon, or has it already.
      source.onerror = () => source.readyState === EventSource.CLOSED && this.#later();
    } catch {
      if (!opening.signal.aborted) this.#later();
    }
  }

  #later(): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#renew(), RETRY_MS);
  }

  #close(): void {
    clearTimeout(this.#retry);
    this.#opening?.abort();
    this.#opening = null;
    this.#source?.close();
    this.#source = null;
  }
}
