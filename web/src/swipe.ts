/** A finger that sweeps over the picture changes the channel. */

const FAR_PX = 48;
const SLOW_MS = 700;

/**
 * Which way a movement leads through the channels: to the left brings the next, as a page is turned.
 * null: it is no sweep. Pixels and milliseconds. Pure.
 */
export function sweep(dx: number, dy: number, ms: number): 1 | -1 | null {
  if (ms > SLOW_MS || Math.abs(dx) < FAR_PX || Math.abs(dx) < 1.5 * Math.abs(dy)) return null;
  return dx < 0 ? 1 : -1;
}

/** Calls `act` for each sweep over an element, whose style lets the browser scroll up and down alone. */
export function onSweep(element: HTMLElement, act: (by: 1 | -1) => void): void {
  let start: { id: number; x: number; y: number; at: number } | null = null;
  element.addEventListener("pointerdown", (event) => {
    const finger = event.pointerType === "touch" && event.target instanceof HTMLVideoElement;
    // A second finger makes it a pinch.
    start =
      finger && event.isPrimary
        ? { id: event.pointerId, x: event.clientX, y: event.clientY, at: event.timeStamp }
        : null;
  });
  element.addEventListener("pointercancel", () => (start = null));
  element.addEventListener("pointerup", (event) => {
    if (start?.id !== event.pointerId) return;
    const by = sweep(event.clientX - start.x, event.clientY - start.y, event.timeStamp - start.at);
    start = null;
    if (by !== null) act(by);
  });
}
