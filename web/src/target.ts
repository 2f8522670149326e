/** What the address of a watch page asks for. Pure. */

import type { Wish } from "./wish";

export interface Target {
  readonly channel: string;
  readonly rendition: string | null;
  readonly embed: boolean;
  /** The secret of a share link, from the fragment, which reaches no server and no log. */
  readonly share: string | null;
}

/** What a path names; "" for nothing, and for a stray % in it. */
function named(pattern: RegExp, path: string): string {
  try {
    return decodeURIComponent(pattern.exec(path)?.[1] ?? "");
  } catch {
    return "";
  }
}

/** The channel that a page of the studio is about; "" where it names none. */
export function studioChannel(path: string): string {
  return named(/^\/studio\/([^/]+)\/?$/, path);
}

export function readTarget(url: URL, framed: boolean): Target {
  const channel = named(/^\/watch\/([^/]+)\/?$/, url.pathname);
  const embed = url.searchParams.get("embed");
  return {
    channel,
    rendition: url.searchParams.get("rendition") || null,
    // ?embed=0 lets a page that frames the player have the full one.
    embed: embed === null ? framed : embed !== "0",
    share: new URLSearchParams(url.hash.slice(1)).get("share") || null,
  };
}

export function whepPath(channel: string, rendition: string | null = null): string {
  const query = rendition ? `?rendition=${encodeURIComponent(rendition)}` : "";
  return `/whep/${encodeURIComponent(channel)}${query}`;
}

export function watchPath(channel: string): string {
  return `/watch/${encodeURIComponent(channel)}`;
}

export function studioPath(channel: string): string {
  return `/studio/${encodeURIComponent(channel)}`;
}

/** The address of the page that shows a wish; whatever else `url` asks for stays. */
export function addressOf(url: URL, wish: Wish, share: string | null = null): URL {
  const address = new URL(url);
  // Left alone where it is right: it may be written another way.
  if (readTarget(url, false).channel !== wish.channel) {
    address.pathname = watchPath(wish.channel);
    // A link's secret is for its own channel: it is not left in the address of another.
    address.hash = share === null ? "" : `share=${encodeURIComponent(share)}`;
  }
  if (wish.rendition) address.searchParams.set("rendition", wish.rendition);
  else address.searchParams.delete("rendition");
  return address;
}

/** The HTML that puts a channel into someone else's page. */
export function embedCode(origin: string, channel: string, title: string): string {
  const plain = title.replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;");
  return (
    `<iframe src="${origin}${watchPath(channel)}?embed=1" title="${plain}" width="640" height="360" ` +
    `allow="autoplay; fullscreen" allowfullscreen style="border:0"></iframe>`
  );
}
