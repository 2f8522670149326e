/** One card per channel. Titles and details come from others: they are only ever set as text. */

import type { Channel } from "./channels";
import { drawing, make, sayOrHide } from "./dom";
import { capitalised, hueOf, monogram, stateLabel, viewersLabel, visibilityLabel } from "./format";
import { embedCode, studioPath, watchPath, whepPath } from "./target";
import { Thumbnail } from "./thumbnails";

type Copy = (text: string, what: string) => void;

/** Streams that branch and rejoin, at a height that depends on the channel. */
function streams(hue: number): SVGElement {
  const base = 96 + (hue % 40);
  const rise = 40 + (hue % 30);
  const svg = drawing(
    "0 0 320 160",
    `M-10 ${base}H330`,
    `M30 ${base}c60 0 40-${rise} 100-${rise}s50 ${rise} 110 ${rise}`,
    `M120 ${base}c50 0 40 ${rise / 2} 90 ${rise / 2}s50-${rise / 2} 100-${rise / 2}`,
  );
  svg.setAttribute("preserveAspectRatio", "xMidYMid slice");
  return svg;
}

export class Card {
  readonly element: HTMLLIElement;
  readonly thumbnail: Thumbnail;
  readonly #letters = make("span", "monogram");
  readonly #title = make("a", "");
  readonly #name = make("code", "name");
  readonly #state = make("span", "badge");
  readonly #viewers = make("span", "");
  readonly #visibility = make("span", "badge plain");
  readonly #now = make("p", "now");
  readonly #detail = make("p", "detail");
  readonly #renditions = make("p", "detail");
  readonly #watch = make("a", "button primary", "Watch");
  readonly #embed = make("button", "button", "Copy embed code");
  readonly #whep = make("button", "button", "Copy WHEP URL");
  readonly #manage = make("a", "button", "Manage");
  #channel: Channel;

  constructor(channel: Channel, copy: Copy) {
    this.#channel = channel;
    const { name } = channel;
    const page = watchPath(name);
    const hue = hueOf(name);
    this.thumbnail = new Thumbnail(name);
    const cover = make("a", "cover", streams(hue), this.#letters, this.thumbnail.element, make("span", "triangle"));
    cover.href = page;
    // The title is the same link; one stop of the tab key is enough.
    cover.tabIndex = -1;
    cover.setAttribute("aria-hidden", "true");
    // Through the object model, which the content security policy allows (style attributes it does not).
    cover.style.setProperty("--hue", String(hue));
    this.#title.href = page;
    this.#watch.href = page;
    this.#manage.href = studioPath(name);
    this.#embed.type = this.#whep.type = "button";
    this.#embed.onclick = () =>
      copy(embedCode(location.origin, name, this.#channel.title || name), "Embed code");
    this.#whep.onclick = () => copy(location.origin + whepPath(name), "WHEP URL");
    const heading = make("div", "", make("h2", "", this.#title), this.#name);
    const facts = make("p", "facts", this.#state, this.#visibility, this.#viewers);
    const actions = make("div", "actions", this.#watch, this.#manage, this.#embed, this.#whep);
    const body = make("div", "body", heading, facts, this.#now, this.#detail, this.#renditions, actions);
    this.element = make("li", "card", cover, body);
    this.update(channel);
  }

  /** In place, so that the focus and a selection survive. */
  update(channel: Channel): void {
    if (channel.viewers > this.#channel.viewers) this.thumbnail.watched(performance.now());
    this.#channel = channel;
    const title = channel.title || channel.name;
    this.element.dataset.state = channel.state;
    sayOrHide(this.#letters, monogram(title));
    sayOrHide(this.#title, title);
    sayOrHide(this.#name, channel.name);
    this.#state.dataset.state = channel.state;
    sayOrHide(this.#state, stateLabel(channel.state));
    sayOrHide(this.#viewers, viewersLabel(channel.viewers));
    sayOrHide(this.#visibility, visibilityLabel(channel.visibility));
    sayOrHide(this.#now, channel.now);
    sayOrHide(this.#detail, channel.detail);
    this.#manage.hidden = !channel.may_manage;
    this.element.classList.toggle("mine", channel.may_manage);
    sayOrHide(
      this.#renditions,
      channel.renditions
        .map((r) => `${capitalised(r.name)} ${r.width}×${r.height}`)
        .join(" · "),
    );
    this.#watch.setAttribute("aria-label", `Watch ${title}`);
    this.#manage.setAttribute("aria-label", `Manage ${title}`);
    this.#embed.setAttribute("aria-label", `Copy embed code of ${title}`);
    this.#whep.setAttribute("aria-label", `Copy WHEP URL of ${title}`);
  }
}
