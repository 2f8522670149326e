/** A few words at the foot of the page that go by themselves. */

import { copyText } from "./clipboard";
import { byId } from "./dom";

const TOAST_MS = 2200;
let fading: ReturnType<typeof setTimeout> | undefined;

export function toast(text: string): void {
  const element = byId("toast");
  element.textContent = text;
  element.classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => element.classList.remove("shown"), TOAST_MS);
}

export async function copy(text: string, what: string): Promise<void> {
  if (await copyText(text)) toast(`${what} copied`);
  else prompt(`${what}:`, text);
}
