/**
 * When to make a new connection, when to show it and when to give one up. Pure: no DOM, no timers;
 * the player feeds events in and carries out the commands that come back.
 *
 * There are at most two links: the one whose picture is `showing`, and one `attempt` that is to
 * replace it. The old picture stays until the attempt has a frame of its own.
 */

/** No new video packets for this long: the link is taken for dead. */
export const STALL_MS = 1200;
/** An attempt must deliver packets within this time. */
export const ATTEMPT_MS = 3000;
/** Packets arrive but no picture comes of them (a decoder that waits for a key frame in vain). */
export const FROZEN_MS = 5000;
/** Pauses before the 1st, 2nd, ... retry; the last one repeats. */
export const RETRY_MS = [100, 250, 500, 1000] as const;
/** What the viewer chose is tried as often again, unless the server refuses it for good. */
export const SWITCH_RETRIES = 2;
/** The server understood the offer and cannot serve it: asking quickly again changes nothing. */
export const HOPELESS_MS = 5000;

export interface Link {
  readonly id: number;
  readonly since: number;
  readonly packets: number;
  readonly packetsAt: number;
  readonly frames: number;
  readonly framesAt: number;
}

/**
 * Why an attempt is made. It decides what ends it early: packets on the old link again end a "stall",
 * a refusal or a few failures end a "switch", nothing else ends a "start" (no old link, or one that is lost for good)
 * or a "frozen" (the old link's packets do arrive).
 */
export type Reason = "start" | "stall" | "frozen" | "switch";

export interface Recovery {
  readonly showing: Link | null;
  readonly attempt: (Link & { readonly reason: Reason }) | null;
  readonly lastId: number;
  /** Attempts that failed since a link last delivered. */
  readonly failures: number;
  readonly retry: { readonly at: number; readonly reason: Reason } | null;
  readonly ended: boolean;
}

export type Event =
  /** Begin, also after an end. */
  | { kind: "open" }
  /** The viewer chose something else: replace a link that works. */
  | { kind: "switch" }
  /** Running totals of a link; `watched` is false where nobody looks (hidden page, paused). */
  | { kind: "counters"; id: number; packets: number; frames: number; watched: boolean }
  /** The first frame of an attempt is ready to be shown. */
  | { kind: "frame"; id: number }
  /** connectionState became failed or closed. */
  | { kind: "lost"; id: number }
  /** The WHEP request failed; status null: no answer came; chosen: it named a rendition. */
  | { kind: "refused"; id: number; status: number | null; chosen: boolean }
  /** Time passed. */
  | { kind: "tick" }
  /** The network is back or the page was brought to the front: do not wait for the next retry. */
  | { kind: "hurry" };

export type Command =
  | { do: "connect"; id: number; reason: Reason }
  | { do: "drop"; id: number }
  | { do: "show"; id: number }
  /** What the viewer chose cannot be had: stay with what is shown. */
  | { do: "revert" }
  /** The rendition named in the address is unknown: ask for the channel without one. */
  | { do: "forget" }
  | { do: "end" };

export const IDLE: Recovery = {
  showing: null,
  attempt: null,
  lastId: 0,
  failures: 0,
  retry: null,
  ended: false,
};

type Step = readonly [Recovery, readonly Command[]];

function connect(state: Recovery, reason: Reason, now: number, before: Command[] = []): Step {
  const id = state.lastId + 1;
  const attempt = { id, since: now, packets: 0, packetsAt: now, frames: 0, framesAt: now, reason };
  return [
    { ...state, attempt, lastId: id, retry: null },
    [...before, { do: "connect", id, reason }],
  ];
}

function failed(state: Recovery, now: number, wait?: number, refused = false): Step {
  const { attempt } = state;
  if (!attempt) return [state, []];
  const drop: Command[] = [{ do: "drop", id: attempt.id }];
  if (attempt.reason === "switch" && state.showing && (refused || state.failures === SWITCH_RETRIES)) {
    // The present picture is still good: keep it rather than chase what cannot be had.
    return [{ ...state, attempt: null, failures: 0 }, [...drop, { do: "revert" }]];
  }
  const pause = wait ?? RETRY_MS[Math.min(state.failures, RETRY_MS.length - 1)]!;
  const retry = { at: now + pause, reason: attempt.reason };
  return [{ ...state, attempt: null, failures: state.failures + 1, retry }, drop];
}

function counted(link: Link, event: Extract<Event, { kind: "counters" }>, now: number): Link {
  const moved = event.packets > link.packets;
  // While nobody watches, browsers may rest the decoder: no evidence of a frozen picture. Without
  // packets it cannot move either; that is a stall and has its own limit.
  const alive = event.frames > link.frames || !event.watched || !moved;
  return {
    ...link,
    packets: event.packets,
    packetsAt: moved ? now : link.packetsAt,
    frames: event.frames,
    framesAt: alive ? now : link.framesAt,
  };
}

function onCounters(state: Recovery, event: Extract<Event, { kind: "counters" }>, now: number): Step {
  const { showing, attempt } = state;
  if (attempt?.id === event.id) {
    return [{ ...state, attempt: { ...attempt, ...counted(attempt, event, now) } }, []];
  }
  if (showing?.id !== event.id) return [state, []];
  const link = counted(showing, event, now);
  const next = { ...state, showing: link };
  const back = link.packets > showing.packets;
  if (back && attempt?.reason === "stall") {
    // The old link woke up before the new one delivered: nothing to replace.
    return [{ ...next, attempt: null, failures: 0 }, [{ do: "drop", id: attempt.id }]];
  }
  if (back && state.retry?.reason === "stall") return [{ ...next, failures: 0, retry: null }, []];
  return [next, []];
}

function onTick(state: Recovery, now: number): Step {
  const { showing, attempt, retry } = state;
  if (attempt) {
    const silent = attempt.packets === 0 && now - attempt.since >= ATTEMPT_MS;
    const dried = attempt.packets > 0 && now - attempt.packetsAt >= ATTEMPT_MS;
    const blind = attempt.packets > 0 && now - attempt.framesAt >= FROZEN_MS;
    return silent || dried || blind ? failed(state, now) : [state, []];
  }
  if (retry) return now >= retry.at ? connect(state, retry.reason, now) : [state, []];
  if (!showing) return [state, []];
  if (now - showing.packetsAt >= STALL_MS) return connect(state, "stall", now);
  if (now - showing.framesAt >= FROZEN_MS) return connect(state, "frozen", now);
  return [state, []];
}

export function step(state: Recovery, event: Event, now: number): Step {
  if (event.kind === "open") {
    if (state.attempt) return [state, []];
    return connect({ ...state, ended: false, failures: 0 }, "start", now);
  }
  if (state.ended) return [state, []];
  const { showing, attempt } = state;
  switch (event.kind) {
    case "switch": {
      const drop: Command[] = attempt ? [{ do: "drop", id: attempt.id }] : [];
      return connect({ ...state, failures: 0 }, showing ? "switch" : "start", now, drop);
    }
    case "counters":
      return onCounters(state, event, now);
    case "frame": {
      if (attempt?.id !== event.id) return [state, []];
      const { reason: _, ...link } = attempt;
      const shown: Link = { ...link, packetsAt: now, framesAt: now };
      const commands: Command[] = [{ do: "show", id: link.id }];
      if (showing) commands.push({ do: "drop", id: showing.id });
      return [{ ...state, showing: shown, attempt: null, failures: 0, retry: null }, commands];
    }
    case "lost":
      if (attempt?.id === event.id) return failed(state, now);
      // The old picture stays on screen; only the watch over its packets is over.
      if (showing?.id !== event.id) return [state, []];
      if (attempt) return [{ ...state, attempt: { ...attempt, reason: "start" } }, []];
      if (state.retry) return [{ ...state, retry: { ...state.retry, reason: "start" } }, []];
      return connect(state, "start", now);
    case "refused": {
      if (attempt?.id !== event.id) return [state, []];
      if (event.status === 404 && attempt.reason !== "switch") {
        const drops: Command[] = [{ do: "drop", id: attempt.id }];
        if (event.chosen) return connect(state, attempt.reason, now, [...drops, { do: "forget" }]);
        if (showing) drops.push({ do: "drop", id: showing.id });
        return [{ ...IDLE, lastId: state.lastId, ended: true }, [...drops, { do: "end" }]];
      }
      const hopeless = event.status === 415 || event.status === 422;
      const refused = event.status !== null && event.status < 500;
      return failed(state, now, hopeless ? HOPELESS_MS : undefined, refused);
    }
    case "tick":
      return onTick(state, now);
    case "hurry":
      return state.retry ? connect(state, state.retry.reason, now) : [state, []];
  }
}
