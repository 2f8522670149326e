/** The director's account of its channels. */

import { ask } from "./api";

export { Refused } from "./api";

export type ChannelState = "live" | "slate" | "starting" | "failed";
export type Visibility = "public" | "unlisted" | "private";

export interface Rendition {
  name: string;
  width: number;
  height: number;
  bitrate_kbps: number;
}

/** What feeds a channel, and how well it arrives; null: not known of this way in. */
export interface Feed {
  way: "whip" | "rtmp" | "srt" | "rtp" | "url" | "file";
  /** Seconds since the epoch. */
  since: number;
  bitrate_kbps: number | null;
  /** 0 to 1. */
  loss: number | null;
  jitter_ms: number | null;
  rtt_ms: number | null;
  codec: string | null;
  width: number | null;
  height: number | null;
  framerate: number | null;
  reconnects: number;
}

export interface Channel {
  name: string;
  title: string;
  state: ChannelState;
  detail: string | null;
  viewers: number;
  renditions: Rendition[];
  /** It takes publishers by WHIP, so from the page /publish. */
  whip: boolean;
  /** What is on, in its producer's words; "": nothing is said. */
  now: string;
  /** Its producer has sent captions lately. */
  captions: boolean;
  visibility: Visibility;
  owner: string | null;
  may_manage: boolean;
  publisher?: Feed | null;
}

/** A channel as whoever manages it sees it. */
export interface Managed extends Channel {
  source: string;
  once: boolean;
  key: string | null;
  /** What to enter at the producer's side, by name. */
  publish: Record<string, string>;
}

export interface Share {
  id: string;
  name: string;
  /** Seconds since the epoch; null: never. */
  expires: number | null;
  used: number | null;
}

export interface NewShare extends Share {
  /** Told once. */
  secret: string;
  url: string;
}

export function channelPath(name: string, rest = ""): string {
  return `/api/channels/${encodeURIComponent(name)}${rest}`;
}

export async function fetchChannels(): Promise<Channel[]> {
  return (await ask<{ channels: Channel[] }>("GET", "/api/channels")).channels;
}

export function fetchChannel(name: string): Promise<Channel> {
  return ask<Channel>("GET", channelPath(name), { channel: name });
}
