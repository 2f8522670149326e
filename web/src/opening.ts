/**
 * The very first thing that a watch page does: ask for the channel. This module is imported before
 * all others and touches no element, so that the request leaves while the page is still being parsed.
 */

import { readTarget, whepPath } from "./target";
import { WhepSession } from "./whep";

export const startedAt = performance.now();

function framed(): boolean {
  try {
    return window.self !== window.top;
  } catch {
    return true;
  }
}

export const target = readTarget(new URL(location.href), framed());

export const opening = target.channel
  ? new WhepSession(whepPath(target.channel, target.rendition))
  : null;

// Decides which parts of the page are there at all; before the first paint if possible.
document.documentElement.classList.add(target.embed ? "embed" : "full");
