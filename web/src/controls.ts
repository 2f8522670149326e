/** Buttons, keys and the rendition menu of the watch page. */

import type { Channel } from "./channels";
import { byId } from "./dom";
import { renditionLabel } from "./format";
import { remember, remembered } from "./memory";
import { Pip } from "./pip";
import type { Player } from "./player";

const IDLE_MS = 2500;
const NUMBERS = "anabranch.statistics";

function label(button: HTMLElement, on: boolean, text: string, key: string): void {
  button.toggleAttribute("data-on", on);
  button.setAttribute("aria-label", text);
  button.title = `${text} (${key})`;
}

export class Controls {
  readonly #stage = byId("stage");
  readonly #play = byId("play");
  readonly #mute = byId("mute");
  readonly #sound = byId("sound");
  readonly #full = byId("full");
  readonly #numbers = byId("numbers");
  readonly #select = byId<HTMLSelectElement>("rendition");
  readonly #pip: Pip;
  #idle = 0;
  #channel: Channel | null = null;

  constructor(
    private readonly player: Player,
    /** Gets the keys that are not ours; tells whether it acted on one. */
    private readonly otherKey: (key: string) => boolean,
  ) {
    this.#pip = new Pip(player.screen, byId("pip"));
    this.#play.onclick = () => this.#togglePlay();
    this.#mute.onclick = () => this.#toggleMute();
    this.#sound.onclick = () => this.#toggleMute();
    this.#full.onclick = () => this.#toggleFull();
    this.#numbers.onclick = () => this.#showNumbers(Boolean(byId("statistics").hidden));
    this.#select.onchange = () => this.#choose();
    // After a click of the mouse the focus goes back, so that the space bar means pause again; who came
    // to the button by keyboard (detail 0) keeps it.
    byId("bar").addEventListener("click", (event) => {
      const button = (event.target as Element).closest("button");
      if (event.detail > 0) button?.blur();
    });
    document.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("fullscreenchange", () => this.refresh());
    this.#stage.addEventListener("pointermove", () => this.#awake());
    this.#stage.addEventListener("focusin", () => this.#awake());
    this.#stage.addEventListener("pointerleave", () => this.#stage.classList.add("idle"));
    this.#stage.addEventListener("click", (event) => this.#tap(event));
    this.#stage.addEventListener("dblclick", (event) => {
      if (event.target instanceof HTMLVideoElement) this.#toggleFull();
    });
    this.#showNumbers(remembered(NUMBERS, true));
    this.#awake();
    this.refresh();
  }

  /** Brings the buttons in line with the player. */
  refresh(): void {
    const { hasAudio, firstFrameAt } = this.player;
    const { paused, muted } = this.player.screen;
    label(this.#play, paused, paused ? "Play" : "Pause", "space");
    label(this.#mute, muted, muted ? "Turn sound on" : "Turn sound off", "m");
    this.#mute.hidden = firstFrameAt !== null && !hasAudio;
    this.#sound.hidden = !muted || !hasAudio || this.player.phase === "ended";
    const full = document.fullscreenElement !== null;
    label(this.#full, full, full ? "Leave full screen" : "Full screen", "f");
    this.#pip.refresh();
    const pulse = byId("pulse");
    pulse.dataset.state = paused ? "paused" : this.player.phase;
    pulse.textContent = paused ? "Paused" : "Live";
    this.#mark();
  }

  offer(channel: Channel): void {
    const names = (list: Channel | null) => JSON.stringify(list?.renditions);
    const same = names(channel) === names(this.#channel);
    this.#channel = channel;
    if (same) return;
    this.#select.replaceChildren(
      ...channel.renditions.map((rendition) => new Option(renditionLabel(rendition), rendition.name)),
    );
    this.#select.hidden = channel.renditions.length < 2;
    this.#mark();
  }

  /** Marks the rendition on screen; if none was asked for, the one of the picture's height. */
  #mark(): void {
    const renditions = this.#channel?.renditions ?? [];
    const { rendition } = this.player.wish;
    const { front } = this.player.screen;
    const seen = renditions.find(({ height }) => height === front.videoHeight) ?? renditions[0];
    const name = rendition ?? seen?.name;
    if (name && name !== this.#select.value) this.#select.value = name;
  }

  #choose(): void {
    this.player.choose({ ...this.player.wish, rendition: this.#select.value });
  }

  #togglePlay(): void {
    this.player.screen.paused = !this.player.screen.paused;
  }

  #toggleMute(): void {
    const muted = !this.player.screen.muted;
    // The large button is about to vanish: hand the focus on, if it had it.
    if (this.#sound.matches(":focus-visible")) this.#mute.focus();
    this.player.screen.muted = muted;
    if (!muted && this.player.screen.paused) this.player.screen.paused = false;
  }

  #toggleFull(): void {
    if (document.fullscreenElement) return void document.exitFullscreen();
    if (this.#stage.requestFullscreen) return void this.#stage.requestFullscreen().catch(() => undefined);
    // iPhones can only enlarge the video element itself.
    const video = this.player.screen.front as HTMLVideoElement & { webkitEnterFullscreen?: () => void };
    video.webkitEnterFullscreen?.();
  }

  #showNumbers(shown: boolean): void {
    byId("statistics").hidden = !shown;
    this.#numbers.setAttribute("aria-pressed", String(shown));
    remember(NUMBERS, shown);
  }

  #tap(event: MouseEvent): void {
    if (!(event.target instanceof HTMLVideoElement)) return;
    // A finger has no way to hover: its tap shows and hides the buttons instead.
    const touch = event instanceof PointerEvent && event.pointerType === "touch";
    if (touch) return this.#awake();
    this.#togglePlay();
  }

  #awake(): void {
    this.#stage.classList.remove("idle");
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => {
      if (!this.player.screen.paused) this.#stage.classList.add("idle");
    }, IDLE_MS);
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const at = event.target as HTMLElement | null;
    if (at?.closest("select, input, textarea")) return;
    // Space presses the button that has the focus.
    if (event.key === " " && at?.closest("button, a")) return;
    const actions: Record<string, () => void> = {
      " ": () => this.#togglePlay(),
      m: () => this.#toggleMute(),
      f: () => this.#toggleFull(),
      s: () => this.#numbers.click(),
      p: () => this.#pip.toggle(),
    };
    const action = actions[event.key.toLowerCase()];
    if (action) action();
    else if (!this.otherKey(event.key)) return;
    event.preventDefault();
    if (action) this.#awake();
  }
}
