/** What the page /publish decides and says. Pure. */

import type { Channel } from "./channels";

/** What the page's address asks for; the key is in the fragment, which no server sees. */
export function readAddress(url: URL): { channel: string; key: string } {
  const key = new URLSearchParams(url.hash.slice(1)).get("key") ?? "";
  return { channel: url.searchParams.get("channel") ?? "", key };
}

/** Letters and digits only: a key that was copied with a blank or quotes around it is meant all the same. */
export function tidyKey(text: string): string {
  return text.replace(/[^A-Za-z0-9]/g, "");
}

export function whipPath(channel: string): string {
  return `/whip/${encodeURIComponent(channel)}`;
}

export interface Verdict {
  /** Trying again may help. */
  again: boolean;
  text: string;
}

/** What a refusal means; `before`: this page was on the air a moment ago. */
export function verdictOn(status: number | null, detail: string | null, before: boolean): Verdict {
  switch (status) {
    case 401:
      return { again: false, text: "The key is not this channel's." };
    case 404:
      return { again: false, text: "There is no such channel that can be published to." };
    case 409:
      // The server may not have noticed yet that this page's own connection is gone.
      return before
        ? { again: true, text: "The server still holds the former connection…" }
        : { again: false, text: "Somebody else publishes to this channel at the moment." };
    case 413:
    case 415:
    case 422:
      return { again: false, text: `This browser and the server do not understand each other: ${detail ?? status}` };
    case null:
      return { again: before, text: detail ?? "The server does not answer." };
    default:
      return { again: before || status === 503, text: detail ?? `The server answers with an error (${status}).` };
  }
}

/** Milliseconds until the next try. */
export function pauseAfter(failures: number): number {
  return Math.min(5000, 500 * 2 ** failures);
}

/** Why a camera, a microphone or the screen is not to be had. */
export function captureTrouble(error: unknown, what: "camera" | "screen"): string {
  const name = error instanceof Error || error instanceof DOMException ? error.name : "";
  switch (name) {
    case "NotAllowedError":
      return what === "camera"
        ? "The browser does not give this page the camera. Allow it at the address bar, and try again."
        : "No screen was chosen.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "There is no such camera or microphone here.";
    case "NotReadableError":
      return "Another program uses the camera or the microphone.";
    default:
      return what === "camera" ? "The camera cannot be used here." : "This browser cannot share a screen.";
  }
}

/** Browsers give cameras only to pages of HTTPS or of the machine itself; null: this is one. */
export function contextTrouble(secure: boolean, url: URL): string | null {
  if (secure) return null;
  const here = `${url.port ? `:${url.port}` : ""}${url.pathname}`;
  return (
    "Browsers give cameras only to pages that come by HTTPS, or from this machine itself." +
    ` Open https://${url.hostname}${here} (the server must run with --tls), or on the server` +
    ` http://localhost${here}.`
  );
}

export type Choice = Pick<Channel, "name" | "title" | "renditions">;

/**
 * Those that can be published to; a channel that the address names comes first. One that is not listed may be there
 * all the same for whoever has its key.
 */
export function choices(channels: readonly Channel[], named: string, key = ""): Choice[] {
  const open: Choice[] = channels.filter(({ whip }) => whip);
  const first = open.filter(({ name }) => name === named);
  const hidden = named && key && !channels.some(({ name }) => name === named);
  if (hidden) first.push({ name: named, title: "", renditions: [] });
  return [...first, ...open.filter(({ name }) => name !== named)];
}

/** The size at which to take the picture: the channel's own, since more is thrown away there. */
export function captureSize(channel: Pick<Channel, "renditions"> | undefined): { width: number; height: number } {
  const [best] = channel?.renditions ?? [];
  return { width: best?.width ?? 1280, height: best?.height ?? 720 };
}

/** A layer as the browser is to send it. */
export interface Layer {
  rid: string;
  scaleResolutionDownBy: number;
  /** bit/s */
  maxBitrate: number;
}

const MAX_LAYERS = 3;

/**
 * The layers of a picture that is taken in the channel's own size: one for each of its renditions, which then
 * need not be made of it by the server. None if one rendition is all.
 */
export function layersOf(channel: Pick<Channel, "renditions"> | undefined): Layer[] {
  const renditions = [...(channel?.renditions ?? [])].sort((a, b) => b.width * b.height - a.width * a.height);
  const [best] = renditions;
  if (!best || renditions.length < 2 || renditions.length > MAX_LAYERS) return [];
  return renditions.map(({ width, bitrate_kbps }, index) => ({
    rid: `r${index}`,
    scaleResolutionDownBy: Math.max(1, best.width / width),
    maxBitrate: bitrate_kbps * 1000,
  }));
}

export interface Sent {
  /** Milliseconds, performance.now(). */
  at: number;
  bytes: number;
  frames: number;
  width: number;
  height: number;
  rttMs: number | null;
  /** 0 to 100, as the server reported last. */
  lossPercent: number | null;
  /** Answers and reports of the server so far. */
  heard: number;
}

type Entry = Record<string, unknown>;

const number = (value: unknown): number | null => (typeof value === "number" ? value : null);

/** The counters of getStats that matter here. */
export function readSent(report: { forEach(visit: (entry: Entry) => void): void }, at: number): Sent {
  const sent: Sent = { at, bytes: 0, frames: 0, width: 0, height: 0, rttMs: null, lossPercent: null, heard: 0 };
  let pair: number | null = null;
  report.forEach((entry) => {
    if (entry.type === "outbound-rtp") {
      sent.bytes += number(entry.bytesSent) ?? 0;
      if (entry.kind !== "video") return;
      // Of layers the largest counts.
      sent.frames = Math.max(sent.frames, number(entry.framesSent) ?? number(entry.framesEncoded) ?? 0);
      sent.width = Math.max(sent.width, number(entry.frameWidth) ?? 0);
      sent.height = Math.max(sent.height, number(entry.frameHeight) ?? 0);
    } else if (entry.type === "remote-inbound-rtp") {
      // Of reports only the time of the newest is known.
      sent.heard += number(entry.timestamp) ?? 0;
      const rtt = number(entry.roundTripTime);
      if (rtt !== null) sent.rttMs = Math.max(sent.rttMs ?? 0, rtt * 1000);
      const loss = number(entry.fractionLost);
      if (loss !== null) sent.lossPercent = Math.max(sent.lossPercent ?? 0, loss * 100);
    } else if (entry.type === "candidate-pair" && entry.nominated === true) {
      pair = number(entry.currentRoundTripTime);
      sent.heard += number(entry.responsesReceived) ?? 0;
    }
  });
  if (sent.rttMs === null && pair !== null) sent.rttMs = pair * 1000;
  return sent;
}

const SILENT_MS = 4000;

/** Notices that the server has fallen silent, long before the browser does. */
export class Listener {
  #heard = -1;
  #since = 0;

  /** Whether nothing new was heard for too long. */
  silent(sent: Sent): boolean {
    if (sent.heard !== this.#heard) {
      this.#heard = sent.heard;
      this.#since = sent.at;
    }
    return sent.at - this.#since >= SILENT_MS;
  }
}

/** Rates between two readings of one connection; null where time stands still. */
export function ratesOf(before: Sent, now: Sent): { bitrateKbps: number; fps: number } | null {
  const seconds = (now.at - before.at) / 1000;
  if (seconds <= 0 || now.bytes < before.bytes) return null;
  return {
    bitrateKbps: ((now.bytes - before.bytes) * 8) / 1000 / seconds,
    fps: Math.max(0, now.frames - before.frames) / seconds,
  };
}
