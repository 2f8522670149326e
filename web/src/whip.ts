/** One WHIP session (RFC 9725): a peer connection that only sends, and its resource on the server. */

import type { Layer } from "./sending";
import { Resource, broken, postOffer, preferH264, refused } from "./session";
import type { Outcome } from "./session";

const ANSWER_MS = 8000;

/** Who declines layers decodes the picture: it may have all the bitrate that there is. */
async function unlimitSingle(sender: RTCRtpSender): Promise<void> {
  const parameters = sender.getParameters();
  const [only, ...more] = parameters.encodings;
  if (!only || more.length || only.maxBitrate === undefined) return;
  delete only.maxBitrate;
  await sender.setParameters(parameters).catch(() => undefined);
}

export class WhipSession {
  readonly outcome: Promise<Outcome>;
  /** Called once when media flows. */
  onup: (() => void) | null = null;
  /** Called once when the connection is failed or closed by the other side. */
  onlost: (() => void) | null = null;
  pc: RTCPeerConnection | null = null;
  #resource: Resource | null = null;
  #closed = false;

  /** The key travels in a header only: addresses get into logs. */
  constructor(url: string, readonly key: string, stream: MediaStream, layers: readonly Layer[] = []) {
    this.outcome = this.#open(url, stream, layers).catch(broken);
  }

  async #open(url: string, stream: MediaStream, layers: readonly Layer[]): Promise<Outcome> {
    if (!globalThis.RTCPeerConnection) throw new Error("This browser has no WebRTC.");
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.pc = pc;
    pc.onconnectionstatechange = () => this.#changed(pc);
    for (const track of [...stream.getVideoTracks(), ...stream.getAudioTracks()]) {
      const sendEncodings = track.kind === "video" && layers.length ? layers.map((layer) => ({ ...layer })) : undefined;
      const transceiver = pc.addTransceiver(track, {
        direction: "sendonly",
        streams: [stream],
        ...(sendEncodings && { sendEncodings }),
      });
      if (track.kind === "video") preferH264(transceiver, globalThis.RTCRtpSender);
    }
    await pc.setLocalDescription();
    const authorization = { authorization: `Bearer ${this.key}` };
    const response = await postOffer(url, pc.localDescription?.sdp ?? "", ANSWER_MS, authorization);
    if (!response.ok) return refused(response);
    this.#resource = new Resource(response, authorization);
    const sdp = await response.text();
    if (this.#closed) {
      this.#resource?.end();
      return { ok: false, status: null, detail: null };
    }
    await pc.setRemoteDescription({ type: "answer", sdp });
    for (const sender of pc.getSenders()) if (layers.length && sender.track?.kind === "video") await unlimitSingle(sender);
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

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.onup = this.onlost = null;
    this.#resource?.end();
    this.pc?.close();
  }
}
