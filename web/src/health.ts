/** How well a channel is fed, in words and figures. Pure. */

import type { Channel, Feed } from "./channels";
import { bitrateLabel, percentLabel } from "./format";

export type Level = "good" | "fair" | "poor" | "none";

export interface Health {
  level: Level;
  /** One sentence without its full stop. */
  text: string;
}

/** From here on a viewer may see it. */
const LOSS = 0.005;
const MUCH_LOSS = 0.05;
const LONG_MS = 400;
const UNEVEN_MS = 60;
const FEW_FPS = 14;
/** Less than a picture that hardly moves, with its sound. */
const LITTLE_KBPS = 48;

function ofFeed(feed: Feed): Health {
  const { loss, rtt_ms: rtt, jitter_ms: jitter, framerate: fps, bitrate_kbps: kbps } = feed;
  if (loss !== null && loss >= LOSS) {
    const text = `Packets are lost on the way in: ${percentLabel(loss * 100)}`;
    return { level: loss >= MUCH_LOSS ? "poor" : "fair", text };
  }
  if (kbps !== null && kbps < LITTLE_KBPS) return { level: "fair", text: `Little arrives: ${bitrateLabel(kbps)}` };
  if (fps !== null && fps > 0 && fps < FEW_FPS) {
    return { level: "fair", text: `Few pictures a second: ${Math.round(fps)}` };
  }
  if (jitter !== null && jitter >= UNEVEN_MS) {
    return { level: "fair", text: `Packets arrive unevenly: ${Math.round(jitter)} ms of jitter` };
  }
  if (rtt !== null && rtt >= LONG_MS) return { level: "fair", text: `The way in is long: ${Math.round(rtt)} ms` };
  return { level: "good", text: "Good" };
}

export function healthOf(channel: Pick<Channel, "state" | "detail" | "publisher">): Health {
  const words = channel.detail ?? "";
  const said = words.slice(0, 1).toUpperCase() + words.slice(1);
  switch (channel.state) {
    case "failed":
      return { level: "poor", text: said || "The source is lost" };
    case "starting":
      return { level: "none", text: said || "Starting" };
    case "slate":
      return { level: "none", text: said || "Nobody sends" };
    default:
      return channel.publisher ? ofFeed(channel.publisher) : { level: "good", text: "Good" };
  }
}

const WAYS: Record<Feed["way"], string> = {
  whip: "WHIP",
  rtmp: "RTMP",
  srt: "SRT",
  rtp: "RTP",
  url: "URL",
  file: "File",
};

/** Seconds as a person says them. */
export function durationLabel(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** The figures by name; null where one is not known. `now`: seconds since the epoch. */
export function figuresOf(feed: Feed | null | undefined, now: number): Record<string, string | null> {
  const ms = (value: number | null | undefined) => (value == null ? null : `${Math.round(value)} ms`);
  return {
    way: feed ? (WAYS[feed.way] ?? feed.way) : null,
    since: feed ? durationLabel(now - feed.since) : null,
    bitrate: feed?.bitrate_kbps == null ? null : bitrateLabel(feed.bitrate_kbps),
    loss: feed?.loss == null ? null : percentLabel(feed.loss * 100),
    rtt: ms(feed?.rtt_ms),
    jitter: ms(feed?.jitter_ms),
    size: feed?.width && feed.height ? `${feed.width}×${feed.height}` : null,
    fps: feed?.framerate ? `${Math.round(feed.framerate)} fps` : null,
  };
}
