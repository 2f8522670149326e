/** What WHIP and WHEP sessions share: the answer to an offer, and the resource that it names. */

import { detailOf } from "./api";

export type Outcome =
  | { ok: true }
  /** status null: the request never got an answer, or this browser could not take part. */
  | { ok: false; status: number | null; detail: string | null };

/** What an attempt that broke off has come to. */
export function broken(error: unknown): Outcome {
  return { ok: false, status: null, detail: error instanceof Error ? error.message : null };
}

/** What a refusal says (RFC 9457). */
export async function refused(response: Response): Promise<Outcome> {
  return { ok: false, status: response.status, detail: await detailOf(response) };
}

/** Post an offer; the headers are added to those that every offer has. */
export async function postOffer(
  url: string,
  sdp: string,
  limitMs: number,
  headers: Record<string, string>,
): Promise<Response> {
  return fetch(url, {
    method: "POST",
    headers: { "content-type": "application/sdp", ...headers },
    body: sdp,
    signal: AbortSignal.timeout(limitMs),
  }).catch(() => {
    throw new Error("The server does not answer.");
  });
}

/** H.264 first: the form in which sources arrive, with the least effort; all others stay on offer after it. */
export function preferH264(
  transceiver: RTCRtpTransceiver,
  end: typeof RTCRtpSender | typeof RTCRtpReceiver | undefined,
): void {
  const codecs = end?.getCapabilities?.("video")?.codecs;
  if (!codecs || !transceiver.setCodecPreferences) return;
  const isH264 = (codec: { mimeType: string }) => codec.mimeType.toLowerCase() === "video/h264";
  try {
    transceiver.setCodecPreferences([...codecs.filter(isH264), ...codecs.filter((c) => !isH264(c))]);
  } catch {
    // The browser's own order will do.
  }
}

/** The resource of a session on the server. */
export class Resource {
  #url: string | null;

  constructor(answer: Response, readonly headers: Record<string, string> = {}) {
    const location = answer.headers.get("location");
    this.#url = location ? new URL(location, answer.url).href : null;
  }

  /** End it, once. Whether the server still knows it does not matter. */
  end(): void {
    if (!this.#url) return;
    // keepalive: this must also get through while the page goes away.
    fetch(this.#url, { method: "DELETE", keepalive: true, headers: this.headers }).catch(() => undefined);
    this.#url = null;
  }
}
