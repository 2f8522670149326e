/** The director's account of its channels. */

export type ChannelState = "live" | "slate" | "starting" | "failed";

export interface Rendition {
  name: string;
  width: number;
  height: number;
  bitrate_kbps: number;
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
}

/** An answer that is not a success; status as HTTP gives it. */
export class Refused extends Error {
  constructor(readonly status: number) {
    super(`the server answered ${status}`);
  }
}

async function getJson(path: string): Promise<unknown> {
  const response = await fetch(path, {
    cache: "no-store",
    headers: { accept: "application/json" },
    signal: AbortSignal.timeout(8000),
  });
  if (!response.ok) throw new Refused(response.status);
  return response.json();
}

export async function fetchChannels(): Promise<Channel[]> {
  return ((await getJson("/api/channels")) as { channels: Channel[] }).channels;
}

export async function fetchChannel(name: string): Promise<Channel> {
  return (await getJson(`/api/channels/${encodeURIComponent(name)}`)) as Channel;
}
