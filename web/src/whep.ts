/** One WHEP session: a peer connection that only receives, and its resource on the server. */

import { authorization, keepToken } from "./credentials";
import { CHANGE, EVENTS, linkTo } from "./link";
import { ATTEMPT_MS } from "./recovery";
import { Resource, broken, postOffer, preferH264, refused } from "./session";
import type { Outcome } from "./session";
import type { Changed, Wish } from "./wish";

/** A change is carried out within milliseconds, or something is wrong. */
const CHANGE_MS = 2000;

/** performance.now() of the steps, for the benchmarks. */
export interface SessionMarks {
  created: number;
  posted?: number;
  answered?: number;
  connected?: number;
}

/** Chromium plays Opus in mono unless the receiver says in its own description that it takes stereo. */
export function askForStereo(sdp: string): string {
  const payload = /^a=rtpmap:(\d+) opus\/48000\/2/im.exec(sdp)?.[1];
  if (!payload) return sdp;
  return sdp.replace(new RegExp(`^a=fmtp:${payload} .*$`, "m"), (line) =>
    /[ ;]stereo=/.test(line) ? line : `${line};stereo=1`,
  );
}

export class WhepSession {
  readonly marks: SessionMarks = { created: performance.now() };
  /** Holds both tracks from the start, so that the video element is ready before the answer is. */
  readonly stream = new MediaStream();
  readonly outcome: Promise<Outcome>;
  /** Called once when the connection is failed or closed by the other side. */
  onlost: (() => void) | null = null;
  pc: RTCPeerConnection | null = null;
  hasAudio = true;
  /** performance.now() of the newest change: when it was asked for, and when it was granted. */
  readonly changeMarks = { asked: 0, granted: 0 };
  #resource: Resource | null = null;
  #change: string | null = null;
  /** Where an event stream about this seat is asked for; null: the server has none. */
  events: string | null = null;
  #closed = false;

  constructor(
    url: string,
    /** Headers that say who asks. */
    private readonly who: Record<string, string> = {},
  ) {
    this.outcome = this.#open(url).catch(broken);
  }

  async #open(url: string): Promise<Outcome> {
    if (!globalThis.RTCPeerConnection) throw new Error("This browser has no WebRTC.");
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.pc = pc;
    pc.onconnectionstatechange = () => this.#changed(pc);
    const transceivers = (["video", "audio"] as const).map((kind) =>
      pc.addTransceiver(kind, { direction: "recvonly" }),
    );
    for (const { receiver } of transceivers) {
      this.stream.addTrack(receiver.track);
      // As little buffering as the network allows; playoutDelayHint is its older, Chromium-only name.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      else if ("playoutDelayHint" in receiver) Object.assign(receiver, { playoutDelayHint: 0 });
    }
    preferH264(transceivers[0]!, globalThis.RTCRtpReceiver);

    const offer = await pc.createOffer();
    const sdp = askForStereo(offer.sdp ?? "");
    // Both at once: the description is final when createOffer returns it. No waiting for candidates,
    // the server learns ours from the connectivity checks.
    const local = pc.setLocalDescription({ type: "offer", sdp });
    this.marks.posted = performance.now();
    const [response] = await Promise.all([
      postOffer(url, sdp, ATTEMPT_MS, { accept: "application/sdp", ...this.who }),
      local,
    ]);
    if (response.status === 401) keepToken(null); // the next try goes without
    if (!response.ok) return refused(response);
    this.#resource = new Resource(response);
    const linked = (relation: string) => {
      const place = linkTo(response.headers.get("link"), relation);
      return place === null ? null : new URL(place, response.url).href;
    };
    this.#change = linked(CHANGE);
    this.events = linked(EVENTS);
    const answer = await response.text();
    this.marks.answered = performance.now();
    if (this.#closed) {
      this.#resource?.end();
      return { ok: false, status: null, detail: null };
    }
    await pc.setRemoteDescription({ type: "answer", sdp: answer });
    // A server that ends the seat says goodbye over DTLS; connectionState does not tell of that.
    const { transport } = transceivers[0]!.receiver;
    if (transport) transport.onstatechange = () => transport.state === "closed" && this.#lost();
    this.hasAudio = transceivers[1]!.currentDirection === "recvonly";
    if (!this.hasAudio) this.stream.removeTrack(transceivers[1]!.receiver.track);
    return { ok: true };
  }

  /** Whether another channel can be had over this connection. */
  get canChange(): boolean {
    return this.#change !== null && !this.#closed;
  }

  /** Show something else over the connection that there is. */
  async change(wish: Wish): Promise<Changed> {
    const no = { ok: false, retryMs: null } as const;
    if (this.#change === null || this.#closed) return no;
    this.changeMarks.asked = performance.now();
    try {
      const response = await fetch(this.#change, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          accept: "application/json",
          ...authorization(wish.channel),
        },
        body: JSON.stringify(wish),
        signal: AbortSignal.timeout(CHANGE_MS),
        priority: "high",
      });
      if (response.status === 429) {
        return { ok: false, retryMs: 1000 * Number(response.headers.get("retry-after") ?? 1) || 1000 };
      }
      if (!response.ok) return no;
      this.changeMarks.granted = performance.now();
      const { rendition, waits } = (await response.json()) as { rendition: string; waits: boolean };
      return { ok: true, rendition, waits };
    } catch {
      return no;
    }
  }

  #changed(pc: RTCPeerConnection): void {
    if (pc.connectionState === "connected") this.marks.connected ??= performance.now();
    if (pc.connectionState === "failed" || pc.connectionState === "closed") this.#lost();
  }

  #lost(): void {
    this.onlost?.();
    this.onlost = null;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.onlost = null;
    this.pc?.close();
    this.#resource?.end();
  }
}
