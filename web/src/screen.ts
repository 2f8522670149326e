/**
 * Two stacked video elements. The front one is seen; the next stream plays behind it, muted, until it
 * has a frame, and then they change places: the old picture stays to the last moment.
 */

import { onFirstFrame } from "./first-frame";

type FrameCallback = (now: number) => void;

export class Screen {
  front: HTMLVideoElement;
  back: HTMLVideoElement;
  /** The viewer's wish changed, or the browser did not grant it. */
  onchange: (() => void) | null = null;

  #muted = true;
  #paused = false;
  #waiters = new Set<FrameCallback>();
  #armed: HTMLVideoElement | null = null;

  constructor(videos: readonly [HTMLVideoElement, HTMLVideoElement]) {
    [this.front, this.back] = videos;
  }

  get muted(): boolean {
    return this.#muted;
  }

  set muted(muted: boolean) {
    this.#muted = muted;
    this.front.muted = muted;
    this.onchange?.();
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** Live: while paused the connection runs on, and playing goes on with the present picture. */
  set paused(paused: boolean) {
    this.#paused = paused;
    if (paused) this.front.pause();
    else this.#play();
    this.onchange?.();
  }

  /** Plays a stream behind the front one and says when its first frame is presented. */
  prepare(stream: MediaStream, ready: () => void): void {
    const video = this.back;
    // No echo of two sounds; and autoplay without sound is allowed everywhere.
    video.muted = true;
    video.srcObject = stream;
    onFirstFrame(video, ready);
    video.play().catch(() => undefined);
  }

  /** Takes a stream off the back element, unless that already plays another. */
  clear(stream: MediaStream): void {
    if (this.back.srcObject === stream) this.back.srcObject = null;
  }

  swap(): void {
    [this.front, this.back] = [this.back, this.front];
    this.back.classList.remove("front");
    this.front.classList.add("front");
    this.back.muted = true;
    this.#armed = null;
    this.#arm();
    this.front.muted = this.#muted;
    if (this.#paused) this.front.pause();
    // Safari stops an element that gets sound without a click of its own.
    else if (this.front.paused) this.#play();
  }

  /** Calls back once, inside requestVideoFrameCallback, at the next frame that is presented. */
  onceFrame(callback: FrameCallback): void {
    this.#waiters.add(callback);
    this.#arm();
  }

  #arm(): void {
    const video = this.front;
    if (!this.#waiters.size || this.#armed === video || !video.requestVideoFrameCallback) return;
    this.#armed = video;
    video.requestVideoFrameCallback(() => {
      const now = performance.now();
      if (this.#armed !== video) return;
      this.#armed = null;
      const waiters = [...this.#waiters];
      this.#waiters.clear();
      for (const waiter of waiters) waiter(now);
    });
  }

  #play(): void {
    const video = this.front;
    video.play().catch((error: unknown) => {
      if (!(error instanceof DOMException) || error.name !== "NotAllowedError") return;
      this.muted = true;
      video.play().catch(() => undefined);
    });
  }
}
