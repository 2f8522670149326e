/**
 * What this tab may show beside the session's cookie: the site's token, and the secrets of share links.
 * The watch page's first module needs this: no imports, no element touched.
 */

const TOKEN = "anabranch.token";
const shares = new Map<string, string>();

/** The operator's token, or an API token, that was entered in this tab; null: none. */
export function token(): string | null {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

/** Keeps a token until the tab is closed; null forgets it. Returns whether the browser keeps it. */
export function keepToken(text: string | null): boolean {
  try {
    if (text === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, text);
    return true;
  } catch {
    return false;
  }
}

/** Whoever came by a link to a channel keeps it for that channel as long as the page is open. */
export function keepShare(channel: string, secret: string | null): void {
  if (secret !== null) shares.set(channel, secret);
}

export function shareOf(channel: string): string | null {
  return shares.get(channel) ?? null;
}

/** The header that a request carries, about one channel or about none. The cookie goes by itself. */
export function authorization(channel?: string): Record<string, string> {
  const secret = token() ?? (channel === undefined ? null : shareOf(channel));
  return secret === null ? {} : { authorization: `Bearer ${secret}` };
}
