/** One WHIP session (RFC 9725): a peer connection that only sends, and its resource on the server. */

const ANSWER_MS = 8000;

export type Outcome =
  | { ok: true }
  /** status null: the request never got an answer, or this browser could not take part. */
  | { ok: false; status: number | null; detail: string | null };

/** H.264 first: what the server decodes with the least effort. */
function preferH264(transceiver: RTCRtpTransceiver): void {
  const codecs = globalThis.RTCRtpSender?.getCapabilities?.("video")?.codecs;
  if (!codecs || !transceiver.setCodecPreferences) return;
  const isH264 = (codec: { mimeType: string }) => codec.mimeType.toLowerCase() === "video/h264";
  try {
    transceiver.setCodecPreferences([...codecs.filter(isH264), ...codecs.filter((c) => !isH264(c))]);
  } catch {
    // The browser's own order will do.
  }
}

async function detailOf(response: Response): Promise<string | null> {
  try {
    const { detail } = (await response.json()) as { detail?: unknown };
    return typeof detail === "string" ? detail : null;
  } catch {
    return null;
  }
}

export class WhipSession {
  readonly outcome: Promise<Outcome>;
  /** Called once when media flows. */
  onup: (() => void) | null = null;
  /** Called once when the connection is failed or closed by the other side. */
  onlost: (() => void) | null = null;
  pc: RTCPeerConnection | null = null;
  #resource: string | null = null;
  #closed = false;

  /** The key travels in a header only: addresses get into logs. */
  constructor(url: string, readonly key: string, stream: MediaStream) {
    this.outcome = this.#open(url, stream).catch((error: unknown): Outcome => {
      return { ok: false, status: null, detail: error instanceof Error ? error.message : null };
    });
  }

  async #open(url: string, stream: MediaStream): Promise<Outcome> {
    if (!globalThis.RTCPeerConnection) throw new Error("This browser has no WebRTC.");
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.pc = pc;
    pc.onconnectionstatechange = () => this.#changed(pc);
    for (const track of [...stream.getVideoTracks(), ...stream.getAudioTracks()]) {
      const transceiver = pc.addTransceiver(track, { direction: "sendonly", streams: [stream] });
      if (track.kind === "video") preferH264(transceiver);
    }
    await pc.setLocalDescription();
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/sdp", authorization: `Bearer ${this.key}` },
      body: pc.localDescription?.sdp ?? "",
      signal: AbortSignal.timeout(ANSWER_MS),
    }).catch(() => {
      throw new Error("The server does not answer.");
    });
    if (!response.ok) return { ok: false, status: response.status, detail: await detailOf(response) };
    const location = response.headers.get("location");
    this.#resource = location ? new URL(location, response.url).href : null;
    const sdp = await response.text();
    if (this.#closed) {
      this.#delete();
      return { ok: false, status: null, detail: null };
    }
    await pc.setRemoteDescription({ type: "answer", sdp });
    // A server that ends the session says goodbye over DTLS; connectionState does not tell of that.
    const transport = pc.getSenders()[0]?.transport;
    if (transport) transport.onstatechange = () => transport.state === "closed" && this.#lost();
    return { ok: true };
  }

  #changed(pc: RTCPeerConnection): void {
    if (pc.connectionState === "connected") {
      this.onup?.();
      this.onup = null;
    }
    if (pc.connectionState === "failed" || pc.connectionState === "closed") this.#lost();
  }

  #lost(): void {
    this.onlost?.();
    this.onlost = null;
  }

  #delete(): void {
    if (!this.#resource) return;
    // keepalive: this must also get through while the page goes away.
    fetch(this.#resource, {
      method: "DELETE",
      keepalive: true,
      headers: { authorization: `Bearer ${this.key}` },
    }).catch(() => undefined);
    this.#resource = null;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.onup = this.onlost = null;
    this.#delete();
    this.pc?.close();
  }
}
