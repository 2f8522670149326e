/** The channels beside the present one: their list, the keys that lead through them, the banner. */

import { Refused, fetchChannels } from "./channels";
import type { Channel } from "./channels";
import { byId } from "./controls";
import { DIGIT_MS, dial, isWhole, neighbour, stepOf } from "./dial";
import type { Dialled } from "./dial";
import type { Player } from "./player";
import { addressOf, readTarget, watchPath } from "./target";

/** How long the banner stays when there is nothing more to say. */
const BANNER_MS = 1800;
/** A channel that was on for less was passed by, and is no place to come back to. */
const VISIT_MS = 3000;

export class Tuner {
  readonly #list = byId("channels");
  readonly #banner = byId("tuned");
  #channels: Channel[] = [];
  #dialled: Dialled | null = null;
  #dialling = 0;
  #hiding = 0;
  #visitedAt = -Infinity;

  constructor(
    private readonly player: Player,
    private readonly embed: boolean,
  ) {
    this.#list.onclick = (event) => this.#click(event);
    addEventListener("popstate", () => {
      const { channel, rendition } = readTarget(new URL(location.href), embed);
      if (channel) this.#tune(channel, rendition);
    });
  }

  /** Asks which channels there are. */
  async refresh(): Promise<void> {
    try {
      this.#show(await fetchChannels());
    } catch (error) {
      if (!(error instanceof Refused)) return;
      this.#show([]);
    }
  }

  titleOf(name: string): string {
    return this.#channels.find((channel) => channel.name === name)?.title || name;
  }

  /** Acts on a key, if it is one of those that choose a channel. */
  key(key: string): boolean {
    const by = stepOf(key);
    if (by !== null) {
      const { channel } = this.player.wish;
      const present = this.#channels.find(({ name }) => name === channel);
      const next = neighbour(this.#channels, present, by);
      if (next) this.#tune(next.name);
      return next !== null;
    }
    if (!/^\d$/.test(key) || this.#channels.length < 2) return false;
    this.#dial(Number(key));
    return true;
  }

  /** The picture is that of the wish: the address follows, and the banner goes. */
  arrived(): void {
    const url = addressOf(new URL(location.href), this.player.wish);
    const now = performance.now();
    if (url.href !== location.href) {
      // A frame is part of somebody else's page, whose history is not ours.
      const another = url.pathname !== location.pathname && !this.embed;
      if (another && now - this.#visitedAt > VISIT_MS) history.pushState(null, "", url);
      else history.replaceState(null, "", url);
      if (another) this.#visitedAt = now;
    }
    this.#mark();
    this.#banner.classList.remove("busy");
    this.#hideSoon();
  }

  #tune(channel: string, rendition = this.player.wish.rendition): void {
    if (channel === this.player.wish.channel && rendition === this.player.wish.rendition) return;
    const number = this.#channels.findIndex(({ name }) => name === channel) + 1;
    this.#say(number ? String(number) : "", this.titleOf(channel), true);
    this.player.choose({ channel, rendition });
    // Who chooses a channel wants to see it.
    if (this.player.screen.paused) this.player.screen.paused = false;
    this.#mark();
  }

  #dial(digit: number): void {
    clearTimeout(this.#dialling);
    const count = this.#channels.length;
    const dialled = (this.#dialled = dial(this.#dialled, digit, count, performance.now()));
    if (!dialled) return this.#say(String(digit), "No such channel", false);
    const { name, title } = this.#channels[dialled.number - 1]!;
    const go = () => {
      this.#dialled = null;
      this.#tune(name);
    };
    this.#say(String(dialled.number), title || name, false);
    if (isWhole(dialled, count)) go();
    else this.#dialling = setTimeout(go, DIGIT_MS);
  }

  #click(event: MouseEvent): void {
    const link = (event.target as Element).closest<HTMLElement>("a[data-name]");
    // With a key held, a link means what it means everywhere: another tab or window.
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.#tune(link.dataset.name!);
  }

  #say(number: string, title: string, busy: boolean): void {
    byId("tuned-number").textContent = number;
    byId("tuned-title").textContent = title;
    this.#banner.classList.toggle("busy", busy);
    this.#banner.hidden = false;
    if (busy) clearTimeout(this.#hiding);
    else this.#hideSoon();
  }

  #hideSoon(): void {
    clearTimeout(this.#hiding);
    this.#hiding = setTimeout(() => (this.#banner.hidden = true), BANNER_MS);
  }

  #show(channels: Channel[]): void {
    const names = (list: Channel[]) => JSON.stringify(list.map(({ name, title }) => [name, title]));
    const unchanged = names(channels) === names(this.#channels);
    this.#channels = channels;
    if (unchanged) return;
    this.#list.replaceChildren(
      ...channels.map(({ name, title }, index) => {
        const link = document.createElement("a");
        const number = document.createElement("span");
        link.href = watchPath(name);
        link.dataset.name = name;
        number.textContent = String(index + 1);
        link.append(number, title || name);
        return link;
      }),
    );
    this.#list.hidden = channels.length < 2;
    byId("keys-channels").hidden = channels.length < 2;
    this.#mark();
  }

  #mark(): void {
    for (const link of this.#list.querySelectorAll<HTMLElement>("a")) {
      const on = link.dataset.name === this.player.wish.channel;
      if (on === link.hasAttribute("aria-current")) continue;
      if (on) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
      if (on) link.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }
}
