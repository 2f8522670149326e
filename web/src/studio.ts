/** The page /studio: the channels that one may manage. */

import { showAccount } from "./account";
import { Refused, wordsOf } from "./api";
import { fetchChannels } from "./channels";
import type { Channel } from "./channels";
import { byId, make, say, sayOrHide, whenParsed } from "./dom";
import { followEvents } from "./events";
import { hueOf, monogram, stateLabel, viewersLabel, visibilityLabel } from "./format";
import { healthOf } from "./health";
import { fetchMe, loginPath } from "./me";
import { NewChannel } from "./new-channel";
import { studioPath } from "./target";
import { Thumbnail, Thumbnails } from "./thumbnails";

const EVERY_MS = 5000;

const who = fetchMe();
const first = fetchChannels();
for (const asked of [who, first]) (asked as Promise<unknown>).catch(() => undefined);

class Row {
  readonly element: HTMLLIElement;
  readonly thumbnail: Thumbnail;
  readonly #letters = make("span", "monogram");
  readonly #title = make("a", "");
  readonly #state = make("span", "badge");
  readonly #visibility = make("span", "badge plain");
  readonly #viewers = make("span", "");
  readonly #health = make("p", "health");
  readonly #now = make("p", "now");

  constructor(readonly name: string) {
    this.thumbnail = new Thumbnail(name);
    this.#title.href = studioPath(name);
    const face = make("div", "face", this.#letters, this.thumbnail.element);
    face.style.setProperty("--hue", String(hueOf(name)));
    const heading = make("div", "", make("h2", "", this.#title), make("code", "name", name));
    const facts = make("p", "facts", this.#state, this.#visibility, this.#viewers);
    this.element = make("li", "row-card", face, make("div", "words", heading, this.#now, facts, this.#health));
  }

  update(channel: Channel): void {
    const title = channel.title || channel.name;
    say(this.#letters, monogram(title));
    say(this.#title, title);
    this.#state.dataset.state = channel.state;
    say(this.#state, stateLabel(channel.state));
    sayOrHide(this.#visibility, visibilityLabel(channel.visibility));
    say(this.#viewers, viewersLabel(channel.viewers));
    sayOrHide(this.#now, channel.now);
    const { level, text } = healthOf(channel);
    this.#health.dataset.level = level;
    say(this.#health, text);
  }
}

function run(): void {
  const list = byId("rows");
  const rows = new Map<string, Row>();
  const thumbnails = new Thumbnails();
  let names: ReadonlySet<string> = new Set();

  const show = (all: readonly Channel[]) => {
    names = new Set(all.map(({ name }) => name));
    const mine = all.filter(({ may_manage }) => may_manage);
    for (const [name, row] of rows) {
      if (mine.some((channel) => channel.name === name)) continue;
      thumbnails.remove(row.thumbnail);
      row.element.remove();
      rows.delete(name);
    }
    mine.forEach((channel, index) => {
      let row = rows.get(channel.name);
      if (!row) {
        row = new Row(channel.name);
        rows.set(channel.name, row);
        thumbnails.add(row.thumbnail);
      }
      row.update(channel);
      if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
    });
    list.setAttribute("aria-busy", "false");
    list.hidden = mine.length === 0;
    byId("empty").hidden = mine.length > 0;
    const live = mine.filter(({ state }) => state === "live").length;
    const viewers = mine.reduce((sum, channel) => sum + channel.viewers, 0);
    say(byId("summary"), mine.length ? `${live} of ${mine.length} live · ${viewersLabel(viewers)}` : "");
  };

  let running = false;
  const refresh = async (asked?: Promise<Channel[]>) => {
    if (running) return;
    running = true;
    try {
      show(await (asked ?? fetchChannels()));
      sayOrHide(byId("trouble"), null);
    } catch (error) {
      sayOrHide(byId("trouble"), wordsOf(error));
    }
    running = false;
  };

  void showAccount(who).then((me) => {
    // Nobody in particular: this page is no use without a name or a token.
    if (me && !me.signed_in) return location.replace(loginPath(new URL(location.href)));
    const open = byId("new");
    if (!me?.may.add_channels) {
      if (me) sayOrHide(byId("trouble"), "Your account watches; adding channels takes the role of a producer.");
      return;
    }
    const form = new NewChannel(() => names, me.may.pull_sources);
    open.hidden = false;
    open.onclick = () => form.open();
    if (location.hash === "#new") form.open();
  });
  // An old token, say.
  who.catch((error: unknown) => {
    if (error instanceof Refused && error.status === 401) location.replace(loginPath(new URL(location.href)));
  });
  void refresh(first);
  followEvents(() => void refresh());
  setInterval(() => document.hidden || void refresh(), EVERY_MS);
}

whenParsed(run);
