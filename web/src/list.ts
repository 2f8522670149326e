/** The channel list. */

import { fetchChannels } from "./channels";
import type { Channel } from "./channels";
import { Card } from "./cards";
import { showAccount } from "./account";
import { byId as part, whenParsed } from "./dom";
import { followEvents } from "./events";
import { viewersLabel } from "./format";
import { fetchMe } from "./me";
import { Thumbnails } from "./thumbnails";
import { copy } from "./toast";

// Asked for before anything else is set up.
const first = fetchChannels();
first.catch(() => undefined);
const me = fetchMe();
me.catch(() => undefined);

const RETRY_MS = 3000;
const COMMAND = "anabranch channel add NAME --from SOURCE";

function summaryOf(channels: readonly Channel[]): string {
  if (!channels.length) return "";
  const live = channels.filter(({ state }) => state === "live").length;
  const viewers = channels.reduce((sum, channel) => sum + channel.viewers, 0);
  return `${live} of ${channels.length} live · ${viewersLabel(viewers)}`;
}

function run(): void {
  const grid = part("grid");
  const cards = new Map<string, Card>();
  const thumbnails = new Thumbnails();

  part("copy-command").onclick = () => void copy(COMMAND, "Command");

  const show = (channels: readonly Channel[]) => {
    const names = new Set(channels.map(({ name }) => name));
    for (const [name, card] of cards) {
      if (names.has(name)) continue;
      thumbnails.remove(card.thumbnail);
      card.element.remove();
      cards.delete(name);
    }
    channels.forEach((channel, index) => {
      let card = cards.get(channel.name);
      if (card) card.update(channel);
      else {
        card = new Card(channel, (text, what) => void copy(text, what));
        cards.set(channel.name, card);
        thumbnails.add(card.thumbnail);
      }
      // Moving an element takes the focus from it: only where the order has really changed.
      if (grid.children[index] !== card.element) grid.insertBefore(card.element, grid.children[index] ?? null);
    });
    part("empty").hidden = channels.length > 0;
    grid.hidden = channels.length === 0;
    grid.setAttribute("aria-busy", "false");
    const summary = summaryOf(channels);
    if (part("summary").textContent !== summary) part("summary").textContent = summary;
  };

  let running = false;
  let again = false;
  let retry = 0;
  const refresh = async (asked: Promise<Channel[]> = fetchChannels()) => {
    if (running) {
      asked.catch(() => undefined);
      again = true;
      return;
    }
    running = true;
    clearTimeout(retry);
    const trouble = part("trouble");
    try {
      show(await asked);
      trouble.hidden = true;
    } catch {
      trouble.textContent = "The server cannot be reached at the moment. Trying again…";
      trouble.hidden = false;
      retry = setTimeout(() => void refresh(), RETRY_MS);
    }
    running = false;
    if (again) {
      again = false;
      void refresh();
    }
  };
  void refresh(first);
  followEvents(() => void refresh());
  void showAccount(me).then((who) => (part("add").hidden = !who?.may.add_channels));
}

whenParsed(run);
