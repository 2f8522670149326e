/**
 * The very first thing that a watch page does: ask for the channel, and show its picture. It is built by
 * itself and stands in the page's head, so that the request leaves before anything else is asked for. All
 * other modules come after the picture, or after what is to be said about the lack of one.
 */

import { onFirstFrame } from "./first-frame";
import { byId, whenParsed } from "./dom";
import { authorization, keepShare } from "./credentials";
import { readTarget, whepPath } from "./target";
import type { Target } from "./target";
import { WhepSession } from "./whep";

/** What the page's modules take over. */
export interface Opening {
  /** performance.now() when the page's first script ran. */
  readonly startedAt: number;
  readonly target: Target;
  /** Under way; null where the address names no channel. */
  readonly session: WhepSession | null;
  /** Its first picture is shown: performance.now() then. Never, if it has none. */
  readonly shown: Promise<number>;
}

declare global {
  interface Window {
    anabranchOpening: Opening;
  }
}

function framed(): boolean {
  try {
    return window.self !== window.top;
  } catch {
    return true;
  }
}

const startedAt = performance.now();
const target = readTarget(new URL(location.href), framed());
keepShare(target.channel, target.share);
const session = target.channel
  ? new WhepSession(whepPath(target.channel, target.rendition), authorization(target.channel))
  : null;
const shown = new Promise<number>((resolve) => {
  if (!session) return;
  // As screen.ts does: behind the front element until there is a picture, then in its place.
  whenParsed(() => {
    const [front, back] = [byId("video-a"), byId<HTMLVideoElement>("video-b")];
    back.srcObject = session.stream;
    onFirstFrame(back, () => {
      front.classList.remove("front");
      back.classList.add("front");
      const at = performance.now();
      setTimeout(() => resolve(at)); // what follows is not to hold up its painting
    });
    back.play().catch(() => undefined);
  });
});
window.anabranchOpening = { startedAt, target, session, shown };

// Decides which parts of the page are there at all; before the first paint if possible.
document.documentElement.classList.add(target.embed ? "embed" : "full");
// In the studio: seen by whoever makes the sound.
document.documentElement.classList.toggle("preview", new URLSearchParams(location.search).get("embed") === "preview");
