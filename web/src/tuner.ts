/** The channels beside the present one: their list, the keys that lead through them, the banner. */

import { Refused, fetchChannels } from "./channels";
import type { Channel } from "./channels";
import { keepShare, shareOf } from "./credentials";
import { byId, say } from "./dom";
import { DIGIT_MS, dial, isWhole, neighbour, stepOf } from "./dial";
import type { Dialled } from "./dial";
import type { Player } from "./player";
import { Strip } from "./strip";
import { addressOf, readTarget, watchPath } from "./target";

/** How long the banner stays when there is nothing more to say. */
const BANNER_MS = 1800;
/** What is on stays longer: it is to be read. */
const NOW_MS = 4500;
/** A channel that was on for less was passed by, and is no place to come back to. */
const VISIT_MS = 3000;
/** Pictures of other channels do not compete with the one that was chosen. */
const LOOK_MS = 400;
/** As long as the style takes to fade. */
const FADE_MS = 300;

export class Tuner {
  readonly #list = byId("channels");
  readonly #banner = byId("tuned");
  readonly #now = byId("now");
  readonly #strip = new Strip((name) => this.#tune(name));
  #channels: Channel[] = [];
  #dialled: Dialled | null = null;
  #dialling = 0;
  #hiding = 0;
  #looking = 0;
  #ending = 0;
  #announced: string;
  #present: Channel | null = null;
  #saysNow = false;
  readonly #overlays = [this.#banner, this.#now, this.#strip.element];
  #visitedAt = -Infinity;

  constructor(
    private readonly player: Player,
    private readonly embed: boolean,
    /** Another channel is asked for. */
    private readonly onleave: () => void = () => undefined,
  ) {
    this.#announced = player.wish.channel;
    this.#list.onclick = (event) => this.#click(event);
    addEventListener("popstate", () => {
      const { channel, rendition, share } = readTarget(new URL(location.href), embed);
      if (!channel) return;
      const another = share !== null && share !== shareOf(channel);
      keepShare(channel, share);
      this.#tune(channel, rendition);
      // A newer link to the same channel was put into the address.
      if (another && player.phase === "ended") player.reopen();
    });
  }

  /** What the server says of the channel on screen; it may be in no list. */
  inform(channel: Channel): void {
    this.#present = channel;
    // It came after the picture did.
    if (this.#saysNow && this.player.wish.channel === channel.name) this.#sayNow();
  }

  /** Says what is on, for a while, or ends that. */
  info(): void {
    if (!this.#banner.hidden && !this.#now.hidden) return this.#hide();
    const { channel } = this.player.wish;
    this.#say(this.#numberOf(channel), this.titleOf(channel), false, NOW_MS);
    this.#sayNow();
  }

  /** The next channel or the one before. */
  step(by: 1 | -1): boolean {
    const { channel } = this.player.wish;
    const present = this.#channels.find(({ name }) => name === channel);
    const next = neighbour(this.#channels, present, by);
    if (next) this.#tune(next.name);
    return next !== null;
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
    if (by !== null) return this.step(by);
    if (!/^\d$/.test(key) || this.#channels.length < 2) return false;
    this.#dial(Number(key));
    return true;
  }

  /** The picture is that of the wish: the address follows, and the banner goes. */
  arrived(): void {
    const { channel } = this.player.wish;
    const url = addressOf(new URL(location.href), this.player.wish, shareOf(channel));
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
    if (channel !== this.#announced) {
      this.#announced = channel;
      this.#sayNow();
      const number = this.#numberOf(channel);
      say(byId("announce"), `${number ? `Channel ${number}, ` : ""}${this.titleOf(channel)}. ${this.#nowOf(channel)}`);
      this.#hideSoon(NOW_MS);
    } else this.#hideSoon(BANNER_MS);
  }

  /** Asks for a channel; false if it is the one that is shown. */
  #tune(channel: string, rendition = this.player.wish.rendition): boolean {
    if (channel === this.player.wish.channel && rendition === this.player.wish.rendition) return false;
    // First of all: what is drawn takes as long as half the way to the server.
    this.player.choose({ channel, rendition });
    this.#now.hidden = true;
    this.#saysNow = false;
    this.onleave();
    this.#say(this.#numberOf(channel), this.titleOf(channel), true);
    this.#strip.show(this.#channels, channel);
    this.#lookSoon();
    // Who chooses a channel wants to see it.
    if (this.player.screen.paused) this.player.screen.paused = false;
    this.#mark();
    return true;
  }

  #dial(digit: number): void {
    clearTimeout(this.#dialling);
    const count = this.#channels.length;
    const dialled = (this.#dialled = dial(this.#dialled, digit, count, performance.now()));
    if (!dialled) return this.#say(String(digit), "No such channel", false);
    const { name, title } = this.#channels[dialled.number - 1]!;
    const go = () => {
      this.#dialled = null;
      return this.#tune(name);
    };
    const whole = isWhole(dialled, count);
    if (whole && go()) return;
    // A stroke for the digit that may follow.
    this.#say(`${dialled.number}${whole ? "" : "–"}`, title || name, false);
    this.#strip.show(this.#channels, name);
    this.#lookSoon();
    if (!whole) this.#dialling = setTimeout(go, DIGIT_MS);
  }

  /** Has the dial's pictures renewed, unless another channel is chosen meanwhile. */
  #lookSoon(): void {
    clearTimeout(this.#looking);
    this.#looking = setTimeout(() => this.#strip.look(), LOOK_MS);
  }

  #click(event: MouseEvent): void {
    const link = (event.target as Element).closest<HTMLElement>("a[data-name]");
    // With a key held, a link means what it means everywhere: another tab or window.
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.#tune(link.dataset.name!);
  }

  #numberOf(name: string): string {
    const index = this.#channels.findIndex((channel) => channel.name === name);
    return index < 0 ? "" : String(index + 1);
  }

  #nowOf(name: string): string {
    const known = this.#present?.name === name ? this.#present : this.#channels.find((each) => each.name === name);
    return known?.now ?? "";
  }

  #sayNow(): void {
    const text = this.#nowOf(this.player.wish.channel);
    this.#saysNow = true;
    say(this.#now, text);
    this.#now.hidden = text === "";
  }

  #say(number: string, title: string, busy: boolean, ms = BANNER_MS): void {
    say(byId("tuned-number"), number);
    say(byId("tuned-title"), title);
    this.#banner.classList.toggle("busy", busy);
    this.#banner.hidden = false;
    this.#banner.classList.remove("going");
    if (busy) this.#stay();
    else this.#hideSoon(ms);
  }

  #stay(): void {
    clearTimeout(this.#hiding);
    clearTimeout(this.#ending);
  }

  #hideSoon(ms: number): void {
    this.#stay();
    this.#hiding = setTimeout(() => {
      for (const part of this.#overlays) part.classList.add("going");
      this.#ending = setTimeout(() => this.#hide(), FADE_MS);
    }, ms);
    for (const part of this.#overlays) part.classList.remove("going");
  }

  #hide(): void {
    this.#stay();
    this.#saysNow = false;
    for (const part of this.#overlays) part.hidden = true;
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
