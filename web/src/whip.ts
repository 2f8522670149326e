/** One WHIP session (RFC 9725): a peer connection that only sends, and its resource on the server. */

import { Resource, broken, postOffer, preferH264, refused } from "./session";
import type { Outcome } from "./session";

const ANSWER_MS = 8000;

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
  constructor(url: string, readonly key: string, stream: MediaStream) {
    this.outcome = this.#open(url, stream).catch(broken);
  }

  async #open(url: string, stream: MediaStream): Promise<Outcome> {
    if (!globalThis.RTCPeerConnection) throw new Error("This browser has no WebRTC.");
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.pc = pc;
    pc.onconnectionstatechange = () => this.#changed(pc);
    for (const track of [...stream.getVideoTracks(), ...stream.getAudioTracks()]) {
      const transceiver = pc.addTransceiver(track, { direction: "sendonly", streams: [stream] });
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
