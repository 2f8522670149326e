/** One card per channel. Titles and details come from others: they are only ever set as text. */

import type { Channel } from "./channels";
import { capitalised, hueOf, monogram, stateLabel, viewersLabel } from "./format";
import { embedCode, watchPath, whepPath } from "./target";
import { Thumbnail } from "./thumbnails";

const SVG = "http://www.w3.org/2000/svg";

type Copy = (text: string, what: string) => void;

function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Streams that branch and rejoin, at a height that depends on the channel. */
function streams(hue: number): SVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 320 160");
  svg.setAttribute("preserveAspectRatio", "xMidYMid slice");
  const base = 96 + (hue % 40);
  const rise = 40 + (hue % 30);
  for (const d of [
    `M-10 ${base}H330`,
    `M30 ${base}c60 0 40-${rise} 100-${rise}s50 ${rise} 110 ${rise}`,
    `M120 ${base}c50 0 40 ${rise / 2} 90 ${rise / 2}s50-${rise / 2} 100-${rise / 2}`,
  ]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === "";
}

export class Card {
  readonly element: HTMLLIElement;
  readonly thumbnail: Thumbnail;
  readonly #letters = make("span", "monogram");
  readonly #title = make("a", "");
  readonly #name = make("code", "name");
  readonly #state = make("span", "badge");
  readonly #viewers = make("span", "");
  readonly #detail = make("p", "detail");
  readonly #renditions = make("p", "detail");
  readonly #watch = make("a", "button primary", "Watch");
  readonly #embed = make("button", "button", "Copy embed code");
  readonly #whep = make("button", "button", "Copy WHEP URL");
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
    this.#embed.type = this.#whep.type = "button";
    this.#embed.onclick = () =>
      copy(embedCode(location.origin, name, this.#channel.title || name), "Embed code");
    this.#whep.onclick = () => copy(location.origin + whepPath(name), "WHEP URL");
    const heading = make("div", "", make("h2", "", this.#title), this.#name);
    const facts = make("p", "facts", this.#state, this.#viewers);
    const actions = make("div", "actions", this.#watch, this.#embed, this.#whep);
    const body = make("div", "body", heading, facts, this.#detail, this.#renditions, actions);
    this.element = make("li", "card", cover, body);
    this.update(channel);
  }

  /** In place, so that the focus and a selection survive. */
  update(channel: Channel): void {
    if (channel.viewers > this.#channel.viewers) this.thumbnail.watched(performance.now());
    this.#channel = channel;
    const title = channel.title || channel.name;
    this.element.dataset.state = channel.state;
    setText(this.#letters, monogram(title));
    setText(this.#title, title);
    setText(this.#name, channel.name);
    this.#state.dataset.state = channel.state;
    setText(this.#state, stateLabel(channel.state));
    setText(this.#viewers, viewersLabel(channel.viewers));
    setText(this.#detail, channel.detail ?? "");
    setText(
      this.#renditions,
      channel.renditions
        .map((r) => `${capitalised(r.name)} ${r.width}×${r.height}`)
        .join(" · "),
    );
    this.#watch.setAttribute("aria-label", `Watch ${title}`);
    this.#embed.setAttribute("aria-label", `Copy embed code of ${title}`);
    this.#whep.setAttribute("aria-label", `Copy WHEP URL of ${title}`);
  }
}
