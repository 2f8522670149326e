/** Reads the machine-readable clock out of a video element. */

import { COLUMNS, ROWS, STRIP_HEIGHT, STRIP_WIDTH, decodeClock } from "./clock";

// 8 x 8 pixels per cell are enough to find its centre, whatever the size of the picture.
const CELL = 8;
let context: CanvasRenderingContext2D | null = null;

function strip(): CanvasRenderingContext2D | null {
  if (context) return context;
  const canvas = document.createElement("canvas");
  canvas.width = COLUMNS * CELL;
  canvas.height = ROWS * CELL;
  // The pixels are wanted here, not on the screen: keep the canvas out of the GPU.
  context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  return context;
}

/** The clock in the frame that the element shows now; null where it has none. */
export function readStrip(video: HTMLVideoElement): number | null {
  const target = strip();
  const { videoWidth: width, videoHeight: height } = video;
  if (!target || !width || !height) return null;
  const { canvas } = target;
  try {
    // Only the strip is drawn, not the picture.
    target.drawImage(
      video, 0, 0, width * STRIP_WIDTH, height * STRIP_HEIGHT, 0, 0, canvas.width, canvas.height,
    );
    return decodeClock(target.getImageData(0, 0, canvas.width, canvas.height));
  } catch {
    return null;
  }
}
