/** Calls back once, when a video element presents its next first frame. */
export function onFirstFrame(video: HTMLVideoElement, callback: () => void): void {
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(callback);
  else video.addEventListener("loadeddata", callback, { once: true });
}
