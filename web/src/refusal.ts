/** Refusals, said beside the field that they are about: the input `ID` has its words in `ID-refusal`. */

import { byId, sayOrHide } from "./dom";

export function refuse(id: string, text: string): void {
  const input = byId<HTMLInputElement>(id);
  sayOrHide(byId(`${id}-refusal`), text);
  input.setAttribute("aria-invalid", "true");
  // What is written anew is not what was refused.
  input.addEventListener("input", () => acceptAll(id), { once: true });
  input.focus();
  if (input.type === "password") input.select();
}

/** Takes them back before the next try: the same words a second time are to be announced again. */
export function acceptAll(...ids: string[]): void {
  for (const id of ids) {
    sayOrHide(byId(`${id}-refusal`), null);
    byId(id).removeAttribute("aria-invalid");
  }
}
