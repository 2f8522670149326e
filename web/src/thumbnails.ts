/** What channels look like now, drawn on their cards while these are seen. */

import { authorization } from "./credentials";

export const EVERY_MS = 10_000;
const LONGEST_MS = 60_000;
const LOOK_MS = 1000;
const ATTEMPT_MS = 8000;
const ARRIVAL_MS = 1500;

/** How long to wait after so many tries in a row that brought nothing. */
export function pauseAfter(failures: number): number {
  return Math.min(EVERY_MS * 2 ** failures, LONGEST_MS);
}

export function thumbnailPath(channel: string): string {
  return `/api/channels/${encodeURIComponent(channel)}/thumbnail.jpg`;
}

/**
 * The picture of one channel. A canvas, not an img: it changes from one picture to the next between
 * two frames, and the browser's cache is asked each time.
 */
export class Thumbnail {
  readonly element = document.createElement("canvas");
  readonly #path: string;
  readonly #channel: string;
  #tag: string | null = null;
  #due = 0;
  #failures = 0;
  #busy = false;

  constructor(channel: string) {
    this.#channel = channel;
    this.#path = thumbnailPath(channel);
    this.element.className = "thumbnail";
  }

  isDue(now: number): boolean {
    return !this.#busy && now >= this.#due;
  }

  /** Somebody has begun to watch: if there was no picture, there is one in a moment. */
  watched(now: number): void {
    if (this.#failures) this.#due = Math.min(this.#due, now + ARRIVAL_MS);
  }

  async look(now: number): Promise<void> {
    this.#busy = true;
    this.#failures = (await this.#renew()) ? 0 : this.#failures + 1;
    this.#due = now + pauseAfter(this.#failures);
    this.#busy = false;
  }

  async #renew(): Promise<boolean> {
    try {
      const response = await fetch(this.#path, {
        priority: "low",
        headers: authorization(this.#channel),
        signal: AbortSignal.timeout(ATTEMPT_MS),
      });
      if (response.status === 404) this.element.classList.remove("shown");
      if (!response.ok) return false;
      const tag = response.headers.get("etag");
      if (tag !== null && tag === this.#tag) {
        this.element.classList.add("shown");
        return true;
      }
      const picture = await createImageBitmap(await response.blob());
      this.element.width = picture.width;
      this.element.height = picture.height;
      this.element.getContext("2d")?.drawImage(picture, 0, 0);
      picture.close();
      this.#tag = tag;
      this.element.classList.add("shown");
      return true;
    } catch {
      return false; // what is there stays
    }
  }
}

/** Keeps the pictures of what is seen fresh: nothing is asked for by a page that nobody looks at. */
export class Thumbnails {
  readonly #seen = new Set<Thumbnail>();
  readonly #all = new Map<Element, Thumbnail>();
  readonly #observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const thumbnail = this.#all.get(target);
        if (!thumbnail) continue;
        if (isIntersecting) this.#seen.add(thumbnail);
        else this.#seen.delete(thumbnail);
      }
      this.#look();
    },
    { rootMargin: "100px" },
  );

  constructor() {
    setInterval(() => this.#look(), LOOK_MS);
    document.addEventListener("visibilitychange", () => this.#look());
  }

  add(thumbnail: Thumbnail): void {
    this.#all.set(thumbnail.element, thumbnail);
    this.#observer.observe(thumbnail.element);
  }

  remove(thumbnail: Thumbnail): void {
    this.#observer.unobserve(thumbnail.element);
    this.#all.delete(thumbnail.element);
    this.#seen.delete(thumbnail);
  }

  #look(): void {
    if (document.hidden) return;
    const now = performance.now();
    for (const thumbnail of this.#seen) if (thumbnail.isDue(now)) void thumbnail.look(now);
  }
}
