/** A camera or a screen goes on the air: the part of a page that publishes, whatever page it is. */

import { capture, devices, release } from "./capture";
import type { Device, Kind } from "./capture";
import type { Channel } from "./channels";
import { byId, say, sayOrHide } from "./dom";
import { bitrateLabel, percentLabel } from "./format";
import { Publisher } from "./publisher";
import type { Phase } from "./publisher";
import { captureSize, captureTrouble, contextTrouble, layersOf, ratesOf } from "./sending";
import type { Sent } from "./sending";

const POLL_MS = 1000;
const LAMP: Record<Phase, string> = {
  idle: "Off air",
  connecting: "Connecting…",
  live: "On air",
  waiting: "Reconnecting…",
};

/** Where to publish to; trouble: why that is not known, and where it is to be mended. */
export type Aim =
  | { channel: Pick<Channel, "name" | "renditions">; key: string }
  | { trouble: string; focus: HTMLElement };

/** Needs the elements of publish.html's studio. */
export class Booth {
  readonly #publisher = new Publisher();
  readonly #cameraPick = byId<HTMLSelectElement>("which-camera");
  readonly #microphonePick = byId<HTMLSelectElement>("which-microphone");
  readonly #go = byId<HTMLButtonElement>("go");
  readonly #preview = byId<HTMLVideoElement>("preview");
  readonly #hopeless: boolean;
  #stream: MediaStream | null = null;
  #kind: Kind | null = null;
  #trouble: string | null;
  #busy = false;
  #before: Sent | null = null;
  #lock: WakeLockSentinel | null = null;

  constructor(
    /** What the page wants published to at present. */
    private readonly aim: () => Aim,
    /** What is on the air, or where to, has changed. */
    private readonly onchange: () => void = () => undefined,
  ) {
    const secure = window.isSecureContext && !!navigator.mediaDevices;
    this.#trouble = contextTrouble(secure, new URL(location.href));
    this.#hopeless = this.#trouble !== null;
    byId("form").onsubmit = (event) => {
      event.preventDefault();
      if (this.#publisher.phase === "idle") void this.start();
      else this.#publisher.stop();
    };
    byId("camera").onclick = () => void this.#take("camera");
    byId("screen").hidden = !navigator.mediaDevices?.getDisplayMedia; // phones
    byId("screen").onclick = () => void this.#take("screen");
    this.#cameraPick.onchange = this.#microphonePick.onchange = () => void this.#take("camera");
    setInterval(() => void this.#poll(), POLL_MS);
    this.#publisher.onchange = () => {
      void this.#keepAwake();
      this.show();
    };
    document.addEventListener("visibilitychange", () => void this.#keepAwake());
    addEventListener("pagehide", () => this.#publisher.stop());
  }

  get phase(): Phase {
    return this.#publisher.phase;
  }

  /** The viewer of the page has changed something: old words are of no use. */
  forgive(): void {
    if (this.phase === "idle") this.#publisher.trouble = null;
    this.show();
  }

  show(): void {
    const words = this.#publisher.trouble ?? this.#trouble;
    sayOrHide(byId("trouble"), words);
    const { phase } = this;
    const lamp = byId("lamp");
    lamp.dataset.phase = phase;
    say(lamp, LAMP[phase]);
    byId<HTMLFieldSetElement>("choices").disabled = phase !== "idle" || this.#hopeless;
    say(this.#go, phase === "idle" ? "Go live" : "Stop");
    this.#go.toggleAttribute("data-stops", phase !== "idle");
    this.#go.disabled = this.#hopeless || this.#busy;
    byId("blank").hidden = this.#stream !== null;
    byId("camera").setAttribute("aria-pressed", String(this.#kind === "camera"));
    byId("screen").setAttribute("aria-pressed", String(this.#kind === "screen"));
    this.onchange();
  }

  async start(): Promise<void> {
    this.#publisher.trouble = null;
    const aim = this.aim();
    if ("trouble" in aim) {
      this.#trouble = aim.trouble;
      aim.focus.focus();
      return this.show();
    }
    this.#trouble = null;
    if (this.#stream === null && !(await this.#take("camera"))) return;
    if (!this.#stream) return;
    // A screen's letters matter more than a smaller rendition of them.
    const layers = this.#kind === "camera" ? layersOf(aim.channel) : [];
    this.#publisher.start(aim.channel.name, aim.key, this.#stream, layers);
  }

  async #take(next: Kind): Promise<boolean> {
    if (this.#busy) return false;
    this.#busy = true;
    this.show();
    const again = next === "camera" && this.#kind === "camera";
    // The one before may be the only one there is: it must be free first.
    release(this.#stream);
    this.#stream = this.#preview.srcObject = null;
    const aim = this.aim();
    try {
      const stream = await capture(next, {
        ...captureSize("trouble" in aim ? undefined : aim.channel),
        camera: again ? this.#cameraPick.value || null : null,
        microphone: again ? this.#microphonePick.value : null,
      });
      this.#stream = this.#preview.srcObject = stream;
      this.#kind = next;
      this.#trouble = null;
      for (const track of stream.getVideoTracks()) track.onended = () => this.#leave("The source has ended.");
      await this.#listDevices();
    } catch (error) {
      this.#kind = null;
      this.#trouble = captureTrouble(error, next);
    }
    this.#busy = false;
    this.show();
    return this.#stream !== null;
  }

  #leave(why: string): void {
    this.#publisher.stop();
    release(this.#stream);
    this.#stream = this.#preview.srcObject = null;
    this.#kind = null;
    this.#trouble = why;
    this.show();
  }

  async #listDevices(): Promise<void> {
    const { cameras, microphones } = await devices();
    const used = (tracks: MediaStreamTrack[] = []) => tracks[0]?.getSettings().deviceId;
    const fill = (pick: HTMLSelectElement, entries: Device[], chosen: string | undefined) => {
      pick.replaceChildren(...entries.map(({ id, label }) => new Option(label, id, false, id === chosen)));
    };
    fill(this.#cameraPick, cameras, used(this.#stream?.getVideoTracks()));
    const none = { id: "", label: "No sound" };
    fill(this.#microphonePick, [...microphones, none], used(this.#stream?.getAudioTracks()) ?? "");
    // A screen's sound is no microphone: which of them is used is not to be chosen then.
    byId("devices").hidden = this.#kind !== "camera";
  }

  /** A phone that goes dark takes its camera along. */
  async #keepAwake(): Promise<void> {
    if (this.phase === "idle") {
      await this.#lock?.release();
      this.#lock = null;
    } else if (!this.#lock && !document.hidden) {
      this.#lock = (await navigator.wakeLock?.request("screen").catch(() => null)) ?? null;
      this.#lock?.addEventListener("release", () => (this.#lock = null));
    }
  }

  async #poll(): Promise<void> {
    const now = this.phase === "live" ? await this.#publisher.sent() : null;
    const rates = now && this.#before ? ratesOf(this.#before, now) : null;
    this.#before = now;
    const put = (name: string, text: string | null) => {
      const cell = document.querySelector(`#statistics [data-is="${name}"]`);
      if (cell) say(cell, text ?? "–");
    };
    put("bitrate", rates && bitrateLabel(rates.bitrateKbps));
    put("fps", rates && `${Math.round(rates.fps)} fps`);
    put("rtt", now && now.rttMs !== null ? `${Math.round(now.rttMs)} ms` : null);
    put("loss", now && now.lossPercent !== null ? percentLabel(now.lossPercent) : null);
    put("size", now?.width ? `${now.width}×${now.height}` : null);
  }
}
