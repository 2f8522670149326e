/** The words over the picture while there is none, or while it stands still. */

import { shareOf } from "./credentials";
import { byId } from "./dom";
import type { Player } from "./player";

interface Words {
  text: string;
  detail: string | null;
  /** There is a picture underneath; stay out of its way. */
  corner: boolean;
  final: boolean;
}

export function wordsFor(
  phase: Player["phase"],
  channel: string,
  detail: string | null,
  byLink = false,
): Words | null {
  switch (phase) {
    case "playing":
      return null;
    case "connecting":
      return detail === null
        ? { text: "Connecting…", detail: null, corner: false, final: false }
        : { text: "Waiting for the channel…", detail, corner: false, final: false };
    case "recovering":
      return { text: "Reconnecting…", detail: null, corner: true, final: false };
    case "ended": {
      if (byLink) {
        const ask = "It has expired or was taken back. Ask whoever sent it to you for a new one.";
        return { text: "This link opens nothing any more", detail: ask, corner: false, final: true };
      }
      const text = channel ? `There is no channel “${channel}”` : "No channel is named here";
      const hint = "It may have been removed, be private, or its name is misspelt.";
      return { text, detail: hint, corner: false, final: true };
    }
  }
}

export function showNotice(player: Pick<Player, "phase" | "detail" | "wish">, embed: boolean): void {
  const { channel } = player.wish;
  const words = wordsFor(player.phase, channel, player.detail, shareOf(channel) !== null);
  const notice = byId("notice");
  notice.hidden = words === null;
  byId("bar").hidden = words?.final ?? false;
  if (!words) return;
  notice.classList.toggle("corner", words.corner);
  notice.classList.toggle("final", words.final);
  const text = byId("notice-text");
  text.textContent = words.text;
  // Then there is nothing else on the page.
  text.setAttribute("role", words.final ? "heading" : "paragraph");
  if (words.final) text.ariaLevel = "1";
  else text.ariaLevel = null;
  byId("notice-detail").textContent = words.detail ?? "";
  byId("notice-detail").hidden = words.detail === null;
  byId("notice-link").hidden = !words.final || embed;
}
