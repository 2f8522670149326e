/** Fields for passwords. */

import { Refused } from "./api";
import { byId } from "./dom";

/** Has the button `show-ID` show what is in the field `ID`; returns what does so by itself. */
export function revealable(id: string): (shown: boolean) => void {
  const input = byId<HTMLInputElement>(id);
  const button = byId(`show-${id}`);
  const what = input.labels?.[0]?.textContent?.toLowerCase() ?? "";
  const show = (shown: boolean): void => {
    input.type = shown ? "text" : "password";
    button.textContent = shown ? "Hide" : "Show";
    button.setAttribute("aria-label", `${button.textContent} ${what}`);
  };
  button.onclick = () => show(input.type === "password");
  show(false);
  return show;
}

// Nothing that is misread from paper or over the telephone; 32 of them are 5 bits each.
const LETTERS = "abcdefghijkmnpqrstuvwxyz23456789";

/** A password that nobody guesses (100 bits), in groups for whoever has to type it. */
export function drawPassword(): string {
  const letters = [...crypto.getRandomValues(new Uint8Array(20))].map((byte) => LETTERS[byte % LETTERS.length]);
  return [0, 5, 10, 15].map((at) => letters.slice(at, at + 5).join("")).join("-");
}

/** The field that a refused change of one's password is about; null: none of them. */
export function refusedField(error: unknown): "old" | "new" | null {
  const status = error instanceof Refused ? error.status : null;
  if (status === 401 || status === 429) return "old";
  return status === 422 ? "new" : null;
}

/** The field that a refused change of an account is about. */
export function refusedPart(error: unknown): "name" | "role" | "password" | null {
  if (!(error instanceof Refused)) return null;
  if (error.status === 409) return /last admin/.test(error.message) ? "role" : "name";
  if (error.status !== 422) return null;
  return /^(a|this) password|^password/.test(error.message) ? "password" : "name";
}
