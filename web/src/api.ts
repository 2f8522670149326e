/** The JSON API of the director. */

import { authorization, keepToken, token } from "./credentials";

const LIMIT_MS = 8000;

/** An answer that is not a success; status as HTTP gives it, null: none came. */
export class Refused extends Error {
  constructor(
    readonly status: number | null,
    /** The server's words for people. */
    detail: string | null = null,
    /** Seconds after which it may be tried again. */
    readonly retryAfterS: number | null = null,
  ) {
    super(detail ?? (status === null ? "The server does not answer." : `The server answered ${status}.`));
  }
}

export async function detailOf(response: Response): Promise<string | null> {
  try {
    const problem = (await response.json()) as { detail?: unknown; title?: unknown };
    const text = problem.detail ?? problem.title;
    return typeof text === "string" ? text : null;
  } catch {
    return null;
  }
}

type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

interface Options {
  body?: unknown;
  /** The channel that it is about, which a share link may open. */
  channel?: string;
  signal?: AbortSignal;
}

/** Sends a request; what is answered is taken for a T, null where nothing is. Throws {@link Refused}. */
export async function ask<T = null>(method: Method, path: string, options: Options = {}): Promise<T> {
  const { body, channel } = options;
  const headers: Record<string, string> = { accept: "application/json", ...authorization(channel) };
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers,
    cache: "no-store",
    signal: options.signal ?? AbortSignal.timeout(LIMIT_MS),
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  }).catch(() => {
    throw new Refused(null);
  });
  if (response.status === 401 && method === "GET" && token() !== null) {
    // A token that was taken back is worse than none: what is public would be refused, too.
    keepToken(null);
    return ask(method, path, options);
  }
  if (!response.ok) {
    const after = Number(response.headers.get("retry-after"));
    throw new Refused(response.status, await detailOf(response), after || null);
  }
  return (response.status === 204 ? null : await response.json()) as T;
}

/** Words for whatever went wrong. */
export function wordsOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const sentence = text.slice(0, 1).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(sentence) ? sentence : `${sentence}.`;
}
