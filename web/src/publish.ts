/** The page /publish: a camera or the screen goes on the air. */

import { capture, devices, release } from "./capture";
import type { Device, Kind } from "./capture";
import { fetchChannels } from "./channels";
import type { Channel } from "./channels";
import { bitrateLabel, percentLabel } from "./format";
import { Publisher } from "./publisher";
import type { Phase } from "./publisher";
import { captureSize, captureTrouble, choices, contextTrouble, layersOf, ratesOf, readAddress, tidyKey } from "./sending";
import type { Sent } from "./sending";
import { watchPath } from "./target";

const POLL_MS = 1000;
const LAMP: Record<Phase, string> = {
  idle: "Off air",
  connecting: "Connecting…",
  live: "On air",
  waiting: "Reconnecting…",
};

function part<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

function run(): void {
  const address = readAddress(new URL(location.href));
  const publisher = new Publisher();
  const channelPick = part<HTMLSelectElement>("channel");
  const keyInput = part<HTMLInputElement>("key");
  const cameraPick = part<HTMLSelectElement>("which-camera");
  const microphonePick = part<HTMLSelectElement>("which-microphone");
  const go = part<HTMLButtonElement>("go");
  const preview = part<HTMLVideoElement>("preview");
  let channels: Channel[] = [];
  let stream: MediaStream | null = null;
  let kind: Kind | null = null;
  let trouble = contextTrouble(window.isSecureContext && !!navigator.mediaDevices, new URL(location.href));
  const hopeless = trouble !== null;
  let busy = false;

  keyInput.value = address.key;

  const show = () => {
    const words = publisher.trouble ?? trouble;
    const box = part("trouble");
    if (box.textContent !== (words ?? "")) box.textContent = words ?? "";
    box.hidden = words === null;
    const { phase } = publisher;
    const lamp = part("lamp");
    lamp.dataset.phase = phase;
    if (lamp.textContent !== LAMP[phase]) lamp.textContent = LAMP[phase];
    part<HTMLFieldSetElement>("choices").disabled = phase !== "idle" || hopeless;
    go.textContent = phase === "idle" ? "Go live" : "Stop";
    go.toggleAttribute("data-stops", phase !== "idle");
    go.disabled = hopeless || busy;
    part("blank").hidden = stream !== null;
    part("camera").setAttribute("aria-pressed", String(kind === "camera"));
    part("screen").setAttribute("aria-pressed", String(kind === "screen"));
    const name = channelPick.value;
    part("watch-line").hidden = !name;
    const link = part<HTMLAnchorElement>("watch");
    link.href = name ? watchPath(name) : "/";
    link.textContent = name ? location.origin + watchPath(name) : "";
  };

  const fill = (pick: HTMLSelectElement, entries: Device[], chosen: string | undefined) => {
    pick.replaceChildren(...entries.map(({ id, label }) => new Option(label, id, false, id === chosen)));
  };

  const listDevices = async () => {
    const { cameras, microphones } = await devices();
    const used = (tracks: MediaStreamTrack[] = []) => tracks[0]?.getSettings().deviceId;
    fill(cameraPick, cameras, used(stream?.getVideoTracks()));
    const none = { id: "", label: "No sound" };
    fill(microphonePick, [...microphones, none], used(stream?.getAudioTracks()) ?? "");
    // A screen's sound is no microphone: which of them is used is not to be chosen then.
    part("devices").hidden = kind !== "camera";
  };

  const take = async (next: Kind): Promise<boolean> => {
    if (busy) return false;
    busy = true;
    show();
    const again = next === "camera" && kind === "camera";
    // The one before may be the only one there is: it must be free first.
    release(stream);
    stream = preview.srcObject = null;
    try {
      const size = captureSize(channels.find(({ name }) => name === channelPick.value));
      stream = await capture(next, {
        ...size,
        camera: again ? cameraPick.value || null : null,
        microphone: again ? microphonePick.value : null,
      });
      kind = next;
      trouble = null;
      preview.srcObject = stream;
      for (const track of stream.getVideoTracks()) track.onended = () => leave("The source has ended.");
      await listDevices();
    } catch (error) {
      kind = null;
      trouble = captureTrouble(error, next);
    }
    busy = false;
    show();
    return stream !== null;
  };

  const leave = (why: string | null) => {
    publisher.stop();
    release(stream);
    stream = preview.srcObject = null;
    kind = null;
    trouble = why;
    show();
  };

  // A phone that goes dark takes its camera along.
  let lock: WakeLockSentinel | null = null;
  const keepAwake = async () => {
    if (publisher.phase === "idle") {
      await lock?.release();
      lock = null;
    } else if (!lock && !document.hidden) {
      lock = (await navigator.wakeLock?.request("screen").catch(() => null)) ?? null;
      lock?.addEventListener("release", () => (lock = null));
    }
  };

  const start = async () => {
    publisher.trouble = null;
    const channel = channelPick.value;
    const key = tidyKey(keyInput.value);
    trouble = !channel ? "There is no channel to publish to." : !key ? "The channel's key is missing." : null;
    if (trouble !== null) {
      (channel ? keyInput : channelPick).focus();
      return show();
    }
    if (stream === null && !(await take("camera"))) return;
    if (!stream) return;
    // A screen's letters matter more than a smaller rendition of them.
    const layers = kind === "camera" ? layersOf(channels.find(({ name }) => name === channel)) : [];
    publisher.start(channel, key, stream, layers);
  };

  part("form").onsubmit = (event) => {
    event.preventDefault();
    if (publisher.phase === "idle") void start();
    else publisher.stop();
  };
  part("camera").onclick = () => void take("camera");
  part("screen").hidden = !navigator.mediaDevices?.getDisplayMedia; // phones
  part("screen").onclick = () => void take("screen");
  cameraPick.onchange = microphonePick.onchange = () => void take("camera");
  channelPick.onchange = show;
  keyInput.oninput = () => {
    if (publisher.phase === "idle") publisher.trouble = null;
    show();
  };
  part("show-key").onclick = () => {
    const shown = keyInput.type === "text";
    keyInput.type = shown ? "password" : "text";
    part("show-key").setAttribute("aria-pressed", String(!shown));
    part("show-key").textContent = shown ? "Show" : "Hide";
  };

  let before: Sent | null = null;
  const put = (name: string, text: string | null) => {
    const cell = document.querySelector<HTMLElement>(`#statistics [data-is="${name}"]`);
    if (cell && cell.textContent !== (text ?? "–")) cell.textContent = text ?? "–";
  };
  const poll = async () => {
    const now = publisher.phase === "live" ? await publisher.sent() : null;
    const rates = now && before ? ratesOf(before, now) : null;
    before = now;
    put("bitrate", rates && bitrateLabel(rates.bitrateKbps));
    put("fps", rates && `${Math.round(rates.fps)} fps`);
    put("rtt", now && now.rttMs !== null ? `${Math.round(now.rttMs)} ms` : null);
    put("loss", now && now.lossPercent !== null ? percentLabel(now.lossPercent) : null);
    put("size", now?.width ? `${now.width}×${now.height}` : null);
  };
  setInterval(() => void poll(), POLL_MS);

  publisher.onchange = () => {
    void keepAwake();
    show();
  };
  document.addEventListener("visibilitychange", () => void keepAwake());
  addEventListener("pagehide", () => publisher.stop());

  const hint = part("channel-hint");
  fetchChannels()
    .then((found) => {
      channels = choices(found, address.channel);
      channelPick.replaceChildren(...channels.map(({ name, title }) => new Option(title || name, name)));
      const unknown = address.channel && channels[0]?.name !== address.channel;
      hint.hidden = channels.length > 0 && !unknown;
      hint.textContent = channels.length
        ? `“${address.channel}” cannot be published to.`
        : "None can be published to yet: anabranch channel add NAME --from whip";
    })
    .catch(() => {
      hint.hidden = false;
      hint.textContent = "The list of channels cannot be had at the moment; load this page again.";
    })
    .finally(show);
  show();
}

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", run);
else run();
