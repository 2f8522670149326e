/** Cameras, microphones and screens. */

export type Kind = "camera" | "screen";

export interface Wanted {
  width: number;
  height: number;
  /** Device identifiers; null: whichever. */
  camera: string | null;
  /** "" for none. */
  microphone: string | null;
}

const FRAME_RATE = { ideal: 30, max: 30 };

function sound(wanted: Wanted): boolean | MediaTrackConstraints {
  if (wanted.microphone === "") return false;
  return wanted.microphone === null ? true : { deviceId: { exact: wanted.microphone } };
}

async function camera(wanted: Wanted): Promise<MediaStream> {
  const video: MediaTrackConstraints = {
    width: { ideal: wanted.width },
    height: { ideal: wanted.height },
    frameRate: FRAME_RATE,
    ...(wanted.camera === null ? {} : { deviceId: { exact: wanted.camera } }),
  };
  const audio = sound(wanted);
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio });
  } catch (error) {
    // A machine without a microphone may publish its picture all the same.
    if (audio !== true || !(error instanceof DOMException) || error.name !== "NotFoundError") throw error;
    return navigator.mediaDevices.getUserMedia({ video });
  }
}

async function screen(wanted: Wanted): Promise<MediaStream> {
  const stream = await navigator.mediaDevices.getDisplayMedia({
    video: { frameRate: FRAME_RATE },
    audio: true,
  });
  for (const track of stream.getVideoTracks()) {
    // Letters matter more than movement.
    track.contentHint = "detail";
    // Of a picture that stands still Chromium sends one frame a second, which the server takes for lost.
    // Only a screen that is captured already may be told how many there must be.
    await track.applyConstraints({ frameRate: { ...FRAME_RATE, min: 5 } }).catch(() => undefined);
  }
  const audio = sound(wanted);
  if (!stream.getAudioTracks().length && audio !== false) {
    const voice = await navigator.mediaDevices.getUserMedia({ audio }).catch(() => null);
    for (const track of voice?.getAudioTracks() ?? []) stream.addTrack(track);
  }
  return stream;
}

/** Throws what the browser throws. */
export function capture(kind: Kind, wanted: Wanted): Promise<MediaStream> {
  return kind === "camera" ? camera(wanted) : screen(wanted);
}

export function release(stream: MediaStream | null): void {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

export interface Device {
  id: string;
  label: string;
}

/** What there is to choose from; nameless before the page was given any of it. */
export async function devices(): Promise<{ cameras: Device[]; microphones: Device[] }> {
  const found = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  const of = (kind: MediaDeviceKind, word: string) =>
    found
      .filter((device) => device.kind === kind && device.deviceId)
      .map(({ deviceId, label }, index) => ({ id: deviceId, label: label || `${word} ${index + 1}` }));
  return { cameras: of("videoinput", "Camera"), microphones: of("audioinput", "Microphone") };
}
