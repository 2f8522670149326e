/** One WHEP session: a peer connection that only receives, and its resource on the server. */

import { ATTEMPT_MS } from "./recovery";

export type Outcome =
  | { ok: true }
  /** status null: the request never got an answer, or this browser could not take part. */
  | { ok: false; status: number | null; detail: string | null };

/** performance.now() of the steps, for the benchmarks. */
export interface SessionMarks {
  created: number;
  posted?: number;
  answered?: number;
  connected?: number;
}

/** H.264 first: the form in which sources arrive; everything else stays on offer after it. */
function preferH264(transceiver: RTCRtpTransceiver): void {
  const codecs = globalThis.RTCRtpReceiver?.getCapabilities?.("video")?.codecs;
  if (!codecs || !transceiver.setCodecPreferences) return;
  const isH264 = (codec: { mimeType: string }) => codec.mimeType.toLowerCase() === "video/h264";
  try {
    transceiver.setCodecPreferences([...codecs.filter(isH264), ...codecs.filter((c) => !isH264(c))]);
  } catch {
    // The browser's own order will do.
  }
}

/** Chromium plays Opus in mono unless the receiver says in its own description that it takes stereo. */
export function askForStereo(sdp: string): string {
  const payload = /^a=rtpmap:(\d+) opus\/48000\/2/im.exec(sdp)?.[1];
  if (!payload) return sdp;
  return sdp.replace(new RegExp(`^a=fmtp:${payload} .*$`, "m"), (line) =>
    /[ ;]stereo=/.test(line) ? line : `${line};stereo=1`,
  );
}

async function detailOf(response: Response): Promise<string | null> {
  try {
    const problem = (await response.json()) as { detail?: unknown; title?: unknown };
    const text = problem.detail ?? problem.title;
    return typeof text === "string" ? text : null;
  } catch {
    return null;
  }
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
  #resource: string | null = null;
  #closed = false;

  constructor(url: string) {
    this.outcome = this.#open(url).catch((error: unknown): Outcome => {
      return { ok: false, status: null, detail: error instanceof Error ? error.message : null };
    });
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
    preferH264(transceivers[0]!);

    const offer = await pc.createOffer();
    const sdp = askForStereo(offer.sdp ?? "");
    // Both at once: the description is final when createOffer returns it. No waiting for candidates,
    // the server learns ours from the connectivity checks.
    const local = pc.setLocalDescription({ type: "offer", sdp });
    this.marks.posted = performance.now();
    const [response] = await Promise.all([
      fetch(url, {
        method: "POST",
        headers: { "content-type": "application/sdp", accept: "application/sdp" },
        body: sdp,
        signal: AbortSignal.timeout(ATTEMPT_MS),
      }).catch(() => {
        throw new Error("The server does not answer.");
      }),
      local,
    ]);
    if (!response.ok) {
      return { ok: false, status: response.status, detail: await detailOf(response) };
    }
    const location = response.headers.get("location");
    this.#resource = location ? new URL(location, response.url).href : null;
    const answer = await response.text();
    this.marks.answered = performance.now();
    if (this.#closed) {
      this.#delete();
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

  #changed(pc: RTCPeerConnection): void {
    if (pc.connectionState === "connected") this.marks.connected ??= performance.now();
    if (pc.connectionState === "failed" || pc.connectionState === "closed") this.#lost();
  }

  #lost(): void {
    this.onlost?.();
    this.onlost = null;
  }

  #delete(): void {
    if (!this.#resource) return;
    // keepalive: this must also get through while the page goes away. Whether the server still knows
    // the resource does not matter.
    fetch(this.#resource, { method: "DELETE", keepalive: true }).catch(() => undefined);
    this.#resource = null;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.onlost = null;
    this.pc?.close();
    this.#delete();
  }
}
