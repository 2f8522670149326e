/** What the studio decides and says. */

import { describe, expect, it } from "vitest";
import { Refused, wordsOf } from "../src/api";
import type { Channel, Feed } from "../src/channels";
import { isSecret, masked, stepsOf } from "../src/hand-over";
import { durationLabel, figuresOf, healthOf } from "../src/health";
import { type Role, loginPath, placeAfter, troubleOf } from "../src/me";
import { WAYS, nameFrom } from "../src/naming";
import { studioChannel, studioPath } from "../src/target";

describe("a name made from a title", () => {
  const none = new Set<string>();
  const RULE = /^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/; // the server's

  it("keeps to the server's rule whatever the title", () => {
    const titles = [
      ...["Evening News", "  Übergrößen & Çà ", "--a--", "æØ", "你好", "<img src=x onerror=alert(1)>"],
      ...["x".repeat(80), `${"a".repeat(39)} b`, "a".repeat(40), "ﬁne ①", "\u0000\u202e!"],
    ];
    for (const title of titles) expect(nameFrom(title, none), title).toMatch(RULE);
    expect(nameFrom("Evening News", none)).toBe("evening-news");
    expect(nameFrom("Straße", none)).toBe("strasse");
    expect(nameFrom("", none)).toBe("");
    expect(nameFrom("   ", none)).toBe("");
  });

  it("is not one that is taken, and not too long for that", () => {
    expect(nameFrom("Stage", new Set(["stage"]))).toBe("stage-2");
    expect(nameFrom("Stage", new Set(["stage", "stage-2", "stage-3"]))).toBe("stage-4");
    const long = "a".repeat(40);
    const name = nameFrom(long, new Set([long]));
    expect(name).toBe(`${"a".repeat(38)}-2`);
    expect(name).toMatch(RULE);
    expect(nameFrom(`${"a".repeat(37)} b`, new Set([`${"a".repeat(37)}-b`]))).toMatch(RULE);
  });

  it("belongs to ways in that differ", () => {
    expect(new Set(WAYS.map(({ id }) => id)).size).toBe(WAYS.length);
  });
});

describe("health", () => {
  const feed: Feed = {
    ...{ way: "whip", since: 1000, bitrate_kbps: 2400, loss: 0, jitter_ms: 4, rtt_ms: 30 },
    ...{ codec: "h264", width: 1280, height: 720, framerate: 30, reconnects: 0 },
  };
  const of = (change: Partial<Feed>, state: Channel["state"] = "live") =>
    healthOf({ state, detail: null, publisher: { ...feed, ...change } });

  it("is good where nothing is wrong, and where nothing is known", () => {
    expect(of({})).toEqual({ level: "good", text: "Good" });
    expect(of({ loss: null, rtt_ms: null, jitter_ms: null, framerate: null, bitrate_kbps: null }).level).toBe("good");
    expect(healthOf({ state: "live", detail: null }).level).toBe("good");
    expect(healthOf({ state: "live", detail: null, publisher: null }).level).toBe("good");
  });

  it("names what is wrong, the worst first", () => {
    expect(of({ loss: 0.03 })).toEqual({ level: "fair", text: "Packets are lost on the way in: 3.0 %" });
    expect(of({ loss: 0.2, bitrate_kbps: 10 })).toEqual({ level: "poor", text: "Packets are lost on the way in: 20.0 %" });
    expect(of({ loss: 0.004 }).level).toBe("good");
    expect(of({ bitrate_kbps: 30 }).text).toBe("Little arrives: 30 kb/s");
    expect(of({ framerate: 8 }).text).toContain("8");
    expect(of({ jitter_ms: 80 }).text).toContain("unevenly");
    expect(of({ rtt_ms: 900 }).text).toContain("900 ms");
  });

  it("of what is not on is why", () => {
    expect(healthOf({ state: "failed", detail: "no route to host" })).toEqual({ level: "poor", text: "No route to host" });
    expect(healthOf({ state: "slate", detail: "waiting for a publisher" }).text).toBe("Waiting for a publisher");
    expect(healthOf({ state: "slate", detail: null }).level).toBe("none");
    expect(healthOf({ state: "starting", detail: null }).level).toBe("none");
    // The figures of a publisher that has gone are of no interest.
    expect(of({ loss: 0.5 }, "slate").level).toBe("none");
  });

  it("has figures where they are known", () => {
    expect(figuresOf(feed, 1075)).toEqual({
      ...{ way: "WHIP", since: "1:15", bitrate: "2.4 Mb/s", loss: "0.0 %", rtt: "30 ms", jitter: "4 ms" },
      ...{ size: "1280×720", fps: "30 fps" },
    });
    for (const none of [null, undefined]) {
      expect(Object.values(figuresOf(none, 0)).every((text) => text === null)).toBe(true);
    }
    expect(durationLabel(3671.9)).toBe("1:01:11");
    expect(durationLabel(-3)).toBe("0:00"); // two clocks
  });
});

describe("what is handed over", () => {
  const KEY = "abcdefghijkl";
  it("hides whatever holds the key", () => {
    expect(isSecret("OBS stream key", KEY, KEY)).toBe(true);
    expect(isSecret("OBS bearer token", "x", null)).toBe(true);
    expect(isSecret("ffmpeg", `ffmpeg … rtmp://h/live/${KEY}`, KEY)).toBe(true);
    expect(isSecret("OBS server", "rtmp://h/live", KEY)).toBe(false);
    expect(isSecret("ffmpeg", "ffmpeg … rtp://h:5004", null)).toBe(false);
    expect(masked(`rtmp://h/live/${KEY}?a=${KEY}`, KEY)).not.toContain(KEY);
    expect(masked(`rtmp://h/live/${KEY}`, KEY)).toContain("rtmp://h/live/");
    expect(masked("else", KEY)).not.toContain("else");
  });
  it("comes with where to enter it", () => {
    expect(stepsOf("whip")).toContain("WHIP");
    expect(stepsOf("rtmp")).toContain("Custom");
    expect(stepsOf("srt:7000")).toContain("Custom");
    expect(stepsOf("/srv/film.mp4")).toContain("server");
  });
});

describe("signing in", () => {
  const after = (query: string, role: Role | null = "producer") =>
    placeAfter(new URL(`https://edge.example/login${query}`), role);
  it("leads back to a page of this server alone", () => {
    expect(after("?next=%2Fwatch%2Fa%23share%3Dabs_x")).toBe("/watch/a#share=abs_x");
    const foreign = ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/login", "\t//evil.example"];
    for (const next of ["", ...foreign]) expect(after(`?next=${encodeURIComponent(next)}`), next).toBe("/studio");
    expect(after("")).toBe("/studio");
  });
  it("leads to what an account is for", () => {
    for (const query of ["", "?next=%2F", "?next=%2Fstudio", "?next=%2Fstudio%2Fstage"]) {
      expect(after(query, "viewer"), query).toBe("/");
    }
    expect(after("?next=%2Faccount", "viewer")).toBe("/account");
    expect(after("?next=%2F", "producer")).toBe("/studio");
    expect(after("?next=%2Fstudio%2Fstage", "admin")).toBe("/studio/stage");
    expect(after("", null)).toBe("/studio");
  });
  it("is asked for with the way back", () => {
    const from = new URL("https://edge.example/watch/a?rendition=low#share=abs_x");
    expect(after(loginPath(from).slice("/login".length))).toBe("/watch/a?rendition=low#share=abs_x");
  });
  it("that is refused says why, and how long to wait", () => {
    expect(troubleOf(new Refused(401, "the name or the password is wrong"))).toBe("The name or the password is wrong.");
    expect(troubleOf(new Refused(429, "too many tries", 30))).toBe("Too many tries. Try again in 30 seconds.");
    expect(troubleOf(new Refused(429, "too many tries: wait 30 s", 30))).toBe("Too many tries: wait 30 s.");
    expect(wordsOf(new Refused(null))).toBe("The server does not answer.");
    expect(wordsOf(new Refused(507))).toBe("The server answered 507.");
  });
});

describe("the studio's address", () => {
  it("names a channel, or none", () => {
    expect(studioChannel(studioPath("a b"))).toBe("a b");
    for (const path of ["/studio", "/studio/", "/studio/a/b", "/studio/%E0%A4"]) expect(studioChannel(path)).toBe("");
  });
});
