/** What a producer copies into another program, field by field. */

import type { Managed } from "./channels";
import { button, make } from "./dom";
import { copy } from "./toast";

const SECRET = /key|token|passphrase/i;

/** Whether a text lets whoever reads it publish: it is not shown before somebody asks. Pure. */
export function isSecret(label: string, text: string, key: string | null): boolean {
  return SECRET.test(label) || (key !== null && text.includes(key));
}

/** The text with the key hidden, and as long as that is. Pure. */
export function masked(text: string, key: string | null): string {
  return key !== null && text.includes(key) ? text.split(key).join("•".repeat(12)) : "•".repeat(12);
}

/** Where in OBS the fields are, by the way in. Pure. */
export function stepsOf(source: string): string {
  const way = /^[a-z]+/.exec(source)?.[0] ?? "";
  switch (way) {
    case "whip":
      return "OBS: Settings, Stream, Service “WHIP”. Or press “Go live” above.";
    case "rtmp":
      return "OBS: Settings, Stream, Service “Custom…”.";
    case "srt":
      return "OBS: Settings, Stream, Service “Custom…”; the server is all of it.";
    case "rtp":
      return "RTP has no key: whoever reaches the port feeds the channel.";
    default:
      return "The server fetches the source itself.";
  }
}

function field(label: string, text: string, key: string | null): HTMLElement {
  const secret = isSecret(label, text, key);
  const value = make("code", "value");
  const shown = (plain: boolean) => (value.textContent = plain || !secret ? text : masked(text, key));
  shown(false);
  const name = make("span", "label", label);
  const actions = make("div", "actions");
  if (secret) {
    const show = button("button small", "Show", () => {
      const plain = show.getAttribute("aria-pressed") !== "true";
      show.setAttribute("aria-pressed", String(plain));
      show.textContent = plain ? "Hide" : "Show";
      shown(plain);
    });
    show.setAttribute("aria-pressed", "false");
    show.setAttribute("aria-label", `Show ${label}`);
    actions.append(show);
  }
  const take = button("button small", "Copy", () => void copy(text, label));
  take.setAttribute("aria-label", `Copy ${label}`);
  actions.append(take);
  return make("div", "handed", make("div", "handed-head", name, actions), value);
}

/** The fields of a channel; the address of /publish is for somebody else's browser. */
export function fieldsOf(channel: Managed): HTMLElement[] {
  return Object.entries(channel.publish).map(([label, text]) => {
    const name = label.startsWith("browser") ? "Link for another camera" : label;
    return field(name, text, channel.key);
  });
}
