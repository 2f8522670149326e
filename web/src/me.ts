/** Who uses this page. */

import { Refused, ask, wordsOf } from "./api";
import { keepToken, token } from "./credentials";

export type Role = "viewer" | "producer" | "operator" | "admin";

export interface Me {
  signed_in: boolean;
  name: string | null;
  role: Role | null;
  by: "session" | "token" | "operator_token" | null;
  may: {
    add_channels: boolean;
    /** Name a file of the director's machine, or a URL, as a source. */
    pull_sources: boolean;
    operate: boolean;
    accounts: boolean;
    tokens: boolean;
  };
  /** When the session ends, seconds since the epoch. */
  expires: number | null;
  /** Whether anybody can sign in at all. */
  accounts: boolean;
}

export function fetchMe(): Promise<Me> {
  return ask<Me>("GET", "/api/me");
}

export function signIn(name: string, password: string): Promise<Me> {
  // A token of this tab would count instead of the session that is to come.
  keepToken(null);
  return ask<Me>("POST", "/api/login", { body: { name, password } });
}

export async function signOut(): Promise<void> {
  const had = token();
  keepToken(null);
  if (had === null) await ask("POST", "/api/logout");
}

/** Ends all sessions of the account, this browser's too. */
export async function signOutEverywhere(): Promise<void> {
  await ask("POST", "/api/logout", { body: { everywhere: true } });
}

/** Tries a token and keeps it for this tab if it is good; null: it is not. */
export async function enterToken(text: string): Promise<Me | null> {
  keepToken(text);
  // The API forgets a token that the server does not know.
  const me = await fetchMe().catch((error: unknown) => {
    keepToken(null);
    throw error;
  });
  if (token() !== null && me.signed_in) return me;
  keepToken(null);
  return null;
}

/** What went wrong, with the seconds to wait where the server names some. */
export function troubleOf(error: unknown): string {
  const words = wordsOf(error);
  const wait = error instanceof Refused && error.status === 429 ? error.retryAfterS : null;
  return wait === null || /\d/.test(words) ? words : `${words} Try again in ${wait} seconds.`;
}

/**
 * Where to go after signing in: a page of this server, whatever the address asks for. Who asks for
 * none, or only for the first, gets to what the account is for: the channels, or the studio.
 */
export function placeAfter(url: URL, role: Role | null): string {
  const wanted = url.searchParams.get("next") ?? "";
  const watches = role === "viewer";
  try {
    const next = new URL(wanted, url.origin);
    const ours = wanted.startsWith("/") && next.origin === url.origin;
    const open = !watches || !/^\/studio(\/|$)/.test(next.pathname);
    if (ours && open && !["/", "/login"].includes(next.pathname)) {
      return next.pathname + next.search + next.hash;
    }
  } catch {
    // Not an address.
  }
  return watches ? "/" : "/studio";
}

export function loginPath(from: URL): string {
  return `/login?next=${encodeURIComponent(from.pathname + from.search + from.hash)}`;
}

/** How somebody is called on the page. */
export function nameOf(me: Me): string {
  return me.name ?? (me.by === "operator_token" ? "Site token" : "Token");
}
