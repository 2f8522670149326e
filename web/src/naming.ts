/** Names of channels and their ways in. Pure. */

/** The server's rule (1 to 40 of a-z, 0-9 and inner '-'), for a title in any script that has Latin letters. */
export function nameFrom(title: string, taken: ReadonlySet<string>): string {
  const plain = title
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .replace(/ß/g, "ss")
    .replace(/[æÆ]/g, "ae")
    .replace(/[øØ]/g, "o")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+/, "")
    .slice(0, 40)
    .replace(/-+$/, "");
  const base = plain || (title.trim() ? "channel" : "");
  if (!base || !taken.has(base)) return base;
  for (let number = 2; ; number++) {
    const end = `-${number}`;
    const name = base.slice(0, 40 - end.length).replace(/-+$/, "") + end;
    if (!taken.has(name)) return name;
  }
}

export interface Way {
  id: string;
  label: string;
  hint: string;
  /** What the server takes as source; null: what is entered. */
  source: string | null;
}

export const WAYS: readonly Way[] = [
  { id: "obs", label: "OBS by WHIP", hint: "OBS 30 or newer; the least delay", source: "whip" },
  { id: "rtmp", label: "OBS by RTMP", hint: "and nearly every encoder", source: "rtmp" },
  { id: "camera", label: "Camera", hint: "or screen, from this browser", source: "whip" },
  { id: "srt", label: "SRT", hint: "encoders over a lossy line", source: "srt" },
  { id: "pull", label: "File or URL", hint: "the server fetches it", source: null },
  { id: "test", label: "Test picture", hint: "bars, a clock and a tone", source: "test" },
];
