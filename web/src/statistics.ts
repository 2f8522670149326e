/** The strip of numbers under the picture. */

import { byId } from "./dom";
import type { DelayReader } from "./delay";
import { bitrateLabel, percentLabel } from "./format";
import type { Player } from "./player";

const NONE = "–";

export function showStatistics(player: Player, delays: DelayReader): void {
  const strip = byId("statistics");
  if (strip.hidden) return;
  const put = (name: string, text: string | null, hint = "") => {
    const cell = strip.querySelector<HTMLElement>(`[data-is="${name}"]`);
    if (!cell) return;
    if (cell.textContent !== (text ?? NONE)) cell.textContent = text ?? NONE;
    cell.title = hint;
  };
  const figures = player.phase === "playing" ? player.figures : null;
  const delay = figures ? delays.present : null;
  put(
    "delay",
    delay && `${delay.measured ? "" : "≈ "}${Math.round(delay.ms)} ms`,
    delay?.measured
      ? "Read off the clock in the picture: from the making of the picture to your screen"
      : "Estimated: buffering, decoding and half a round trip",
  );
  const { bitrateKbps = null, lossPercent = null, fps = null } = figures ?? {};
  put("bitrate", bitrateKbps === null ? null : bitrateLabel(bitrateKbps));
  put("loss", lossPercent === null ? null : percentLabel(lossPercent));
  const { videoWidth, videoHeight } = player.screen.front;
  put("size", videoWidth ? `${videoWidth}×${videoHeight}` : null);
  put("fps", fps === null ? null : `${Math.round(fps)} fps`);
}
