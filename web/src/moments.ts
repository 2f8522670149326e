/** How points in time read, from here. Seconds since the epoch. Pure. */

const DAY_S = 24 * 3600;

/** How long something still holds. */
export function remaining(expires: number | null, now: number): string {
  if (expires === null) return "until taken back";
  const left = expires - now;
  if (left <= 0) return "expired";
  const hours = left / 3600;
  if (hours < 1) return `${Math.max(1, Math.round(left / 60))} min left`;
  return hours < 48 ? `${Math.round(hours)} h left` : `${Math.round(hours / 24)} days left`;
}

/** When something was; the server notes uses to some minutes, so that nothing is said finer. */
export function ago(moment: number, now: number): string {
  const past = Math.max(0, now - moment);
  if (past < 600) return "just now";
  if (past < 3600) return `${Math.round(past / 60)} min ago`;
  if (past < 2 * DAY_S) return `${Math.round(past / 3600)} h ago`;
  if (past < 60 * DAY_S) return `${Math.round(past / DAY_S)} days ago`;
  return `on ${dayLabel(moment)}`;
}

export function dayLabel(moment: number): string {
  return new Date(moment * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
}
