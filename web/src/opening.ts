/**
 * The very first thing that a watch page does: ask for the channel. This module is imported before
 * all others and touches no element, so that the request leaves while the page is still being parsed.
 */

import { authorization, keepShare } from "./credentials";
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

keepShare(target.channel, target.share);

export const opening = target.channel
  ? new WhepSession(whepPath(target.channel, target.rendition), authorization(target.channel))
  : null;

// Decides which parts of the page are there at all; before the first paint if possible.
document.documentElement.classList.add(target.embed ? "embed" : "full");
// In the studio: seen by whoever makes the sound.
document.documentElement.classList.toggle("preview", new URLSearchParams(location.search).get("embed") === "preview");
