/** The accounts of a site, as admins see them. Pure. */

import type { Role } from "./me";
import { ago } from "./moments";

/** More rows at once are of no use to anybody: the filter finds them. */
export const MOST_ROWS = 100;

export interface Account {
  name: string;
  role: Role;
  /** Seconds since the epoch; seen: the last login. */
  created: number;
  seen: number | null;
  /** Names of those that it owns. */
  channels: string[];
}

export function accountPath(name: string): string {
  return `/api/accounts/${encodeURIComponent(name)}`;
}

/** The accounts whose name or role has these words in it, the first of them. Pure. */
export function found(accounts: readonly Account[], words: string, most = MOST_ROWS): Account[] {
  const parts = words.toLowerCase().split(/\s+/).filter(Boolean);
  return accounts.filter(({ name, role }) => parts.every((part) => `${name} ${role}`.includes(part))).slice(0, most);
}

/** What there is to say of an account. Pure. */
export function accountFacts({ seen, channels }: Account, now: number): string {
  const signed = seen === null ? "never signed in" : `signed in ${ago(seen, now)}`;
  const owned = channels.length === 1 ? "1 channel" : `${channels.length} channels`;
  return channels.length ? `${signed} · ${owned}` : signed;
}

/** What ends with an account, before it is asked whether it is to. Pure. */
export function removalWords({ channels }: Account, isSelf: boolean): string {
  const stay = channels.length === 1 ? "Its channel stays" : `Its ${channels.length} channels stay`;
  const rest = channels.length ? ` ${stay}, for operators to manage.` : "";
  return `${isSelf ? "This is you. " : ""}Its sessions and API tokens end at once.${rest}`;
}
