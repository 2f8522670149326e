/** The dial: the channels to either side of the one that is chosen, with what they look like. */

import type { Channel } from "./channels";
import { around } from "./dial";
import { byId, make, say } from "./dom";
import { hueOf, monogram } from "./format";
import { watchPath } from "./target";
import { Thumbnail } from "./thumbnails";

const REACH = 2;

class Tile {
  readonly element = make("a", "tile");
  readonly thumbnail: Thumbnail;
  readonly #letters = make("span", "monogram");
  readonly #number = make("span", "number");
  readonly #title = make("span", "tile-title");

  constructor(readonly name: string) {
    this.thumbnail = new Thumbnail(name);
    const face = make("span", "face", this.#letters, this.thumbnail.element, this.#number);
    face.style.setProperty("--hue", String(hueOf(name)));
    this.element.append(face, this.#title);
    this.element.href = watchPath(name);
    this.element.dataset.name = name;
    this.element.draggable = false;
    // For mice and fingers: it comes and goes by itself. The list under the picture is for everybody.
    this.element.tabIndex = -1;
  }

  update(channel: Channel, number: number, chosen: boolean): void {
    const title = channel.title || channel.name;
    say(this.#letters, monogram(title));
    say(this.#number, String(number));
    say(this.#title, title);
    this.element.classList.toggle("chosen", chosen);
  }
}

export class Strip {
  readonly element = byId("strip");
  #seen: Tile[] = [];
  readonly #tiles = new Map<string, Tile>();

  constructor(tune: (channel: string) => void) {
    this.element.onclick = (event) => {
      const tile = (event.target as Element).closest<HTMLElement>("a[data-name]");
      if (!tile || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      tune(tile.dataset.name!);
    };
  }

  /** Shows the surroundings of a channel; nothing where it has none. */
  show(channels: readonly Channel[], name: string): void {
    const at = channels.findIndex((channel) => channel.name === name);
    this.element.hidden = at < 0 || channels.length < 2;
    if (this.element.hidden) return;
    const seen = around(channels, at, REACH);
    this.#seen = seen.map((channel) => {
      const tile = this.#tiles.get(channel.name) ?? new Tile(channel.name);
      this.#tiles.set(channel.name, tile);
      tile.update(channel, channels.indexOf(channel) + 1, channel.name === name);
      return tile;
    });
    const tiles = this.#seen.map((tile) => tile.element);
    this.element.classList.remove("going");
    this.element.replaceChildren(...tiles);
    // On a narrow screen not all of them fit. Not scrollIntoView, which would move the page as well.
    const chosen = tiles.find((tile) => tile.classList.contains("chosen"));
    if (chosen) {
      this.element.scrollLeft = chosen.offsetLeft - (this.element.clientWidth - chosen.offsetWidth) / 2;
    }
  }

  /** Renews the pictures of what is seen. */
  look(): void {
    if (this.element.hidden) return;
    const now = performance.now();
    for (const { thumbnail } of this.#seen) if (thumbnail.isDue(now)) void thumbnail.look(now);
  }
}
