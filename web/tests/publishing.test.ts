import { describe, expect, it } from "vitest";
import type { Channel } from "../src/channels";
import { Listener, captureSize, captureTrouble, choices, contextTrouble, layersOf, pauseAfter, ratesOf, readAddress, readSent, tidyKey, verdictOn, whipPath } from "../src/sending";

const channel = (name: string, whip = true): Channel => ({
  name,
  title: name,
  state: "slate",
  detail: null,
  viewers: 0,
  renditions: [{ name: "high", width: 640, height: 360, bitrate_kbps: 1000 }],
  whip,
  now: "",
  captions: false,
  visibility: "public",
  owner: null,
  may_manage: false,
});

describe("the address", () => {
  const read = (path: string) => readAddress(new URL(path, "https://edge.example"));
  it("has the channel in its query and the key in its fragment alone", () => {
    expect(read("/publish?channel=stage#key=abc123")).toEqual({ channel: "stage", key: "abc123" });
    expect(read("/publish?channel=stage&key=abc123")).toEqual({ channel: "stage", key: "" });
    expect(read("/publish")).toEqual({ channel: "", key: "" });
    expect(read("/publish?channel=%E0%A4#%E0%A4")).toEqual({ channel: "\ufffd", key: "" });
  });
  it("of the endpoint is escaped", () => {
    expect(whipPath("a/b")).toBe("/whip/a%2Fb");
  });
  it("keys lose what a copy may add", () => {
    expect(tidyKey(' "abc123"\n')).toBe("abc123");
  });
});

describe("a refusal", () => {
  it("that lasts ends the try", () => {
    for (const status of [401, 404, 409, 413, 415, 422]) expect(verdictOn(status, "x", false).again).toBe(false);
    expect(verdictOn(401, null, true).text).toContain("key");
    expect(verdictOn(422, "no H.264", false).text).toContain("no H.264");
  });
  it("that passes is tried again", () => {
    expect(verdictOn(503, "it starts", false)).toEqual({ again: true, text: "it starts" });
    // Its own former connection holds the channel until the server notices.
    expect(verdictOn(409, null, true).again).toBe(true);
    expect(verdictOn(null, null, true).again).toBe(true);
    expect(verdictOn(null, "no WebRTC", false)).toEqual({ again: false, text: "no WebRTC" });
  });
  it("is waited out ever longer", () => {
    expect([0, 1, 2, 3, 4, 20].map(pauseAfter)).toEqual([500, 1000, 2000, 4000, 5000, 5000]);
  });
});

describe("what cannot be captured", () => {
  const named = (name: string) => Object.assign(new Error(), { name });
  it("is said in words", () => {
    expect(captureTrouble(named("NotAllowedError"), "camera")).toContain("Allow");
    expect(captureTrouble(named("NotAllowedError"), "screen")).toBe("No screen was chosen.");
    expect(captureTrouble(named("NotFoundError"), "camera")).toContain("no such camera");
    expect(captureTrouble(named("NotReadableError"), "camera")).toContain("Another program");
    expect(captureTrouble("?", "camera")).toBeTruthy();
  });
  it("from a page without HTTPS names the way out", () => {
    const page = new URL("http://192.0.2.7:8080/publish?channel=stage#key=abc");
    expect(contextTrouble(true, page)).toBeNull();
    const words = contextTrouble(false, page) ?? "";
    expect(words).toContain("https://192.0.2.7:8080/publish");
    expect(words).toContain("http://localhost:8080/publish");
    expect(words).not.toContain("abc");
  });
});

describe("channels", () => {
  it("are those that can be published to, the named one first", () => {
    const all = [channel("test1", false), channel("a"), channel("b")];
    expect(choices(all, "b").map(({ name }) => name)).toEqual(["b", "a"]);
    expect(choices(all, "test1").map(({ name }) => name)).toEqual(["a", "b"]);
    expect(choices([], "x")).toEqual([]);
  });
  it("say the size of the picture", () => {
    expect(captureSize(channel("a"))).toEqual({ width: 640, height: 360 });
    expect(captureSize(undefined)).toEqual({ width: 1280, height: 720 });
  });
  it("have a layer for each rendition, the largest first", () => {
    const rendition = (name: string, width: number, bitrate_kbps: number) => ({ name, width, height: (width * 9) / 16, bitrate_kbps });
    const [low, high] = [rendition("low", 320, 300), rendition("high", 640, 1000)];
    const two = { ...channel("a"), renditions: [low, high] };
    expect(layersOf(two)).toEqual([
      { rid: "r0", scaleResolutionDownBy: 1, maxBitrate: 1_000_000 },
      { rid: "r1", scaleResolutionDownBy: 2, maxBitrate: 300_000 },
    ]);
    expect(layersOf(channel("a"))).toEqual([]);
    expect(layersOf(undefined)).toEqual([]);
    expect(layersOf({ ...two, renditions: [high, low, high, low] })).toEqual([]);
  });
});

describe("figures", () => {
  const report = (t: number) => [
    { type: "outbound-rtp", kind: "video", bytesSent: 125_000 * t, framesSent: 30 * t, frameWidth: 640, frameHeight: 360 },
    { type: "outbound-rtp", kind: "audio", bytesSent: 8000 * t },
    { type: "remote-inbound-rtp", roundTripTime: 0.02, fractionLost: 0.25, timestamp: 1000 * t },
    { type: "remote-inbound-rtp", roundTripTime: 0.01, fractionLost: 0 },
    { type: "candidate-pair", nominated: true, currentRoundTripTime: 9, responsesReceived: 2 },
  ];
  it("become rates", () => {
    const [before, now] = [readSent(report(1), 1000), readSent(report(3), 3000)];
    expect(now).toEqual({ at: 3000, bytes: 399_000, frames: 90, width: 640, height: 360, rttMs: 20, lossPercent: 25, heard: 3002 });
    expect(ratesOf(before, now)).toEqual({ bitrateKbps: 1064, fps: 30 });
  });
  it("of another connection make no rate", () => {
    expect(ratesOf(readSent(report(3), 1000), readSent(report(1), 2000))).toBeNull();
    expect(ratesOf(readSent(report(1), 1000), readSent(report(1), 1000))).toBeNull();
  });
  it("tell when the server has fallen silent", () => {
    const listener = new Listener();
    const seen = (at: number, heard: number) => listener.silent({ ...readSent([], at), heard });
    expect([seen(50_000, 0), seen(53_000, 0), seen(53_500, 1), seen(57_000, 1)]).toEqual([false, false, false, false]);
    expect(seen(57_500, 1)).toBe(true);
    expect(seen(58_000, 2)).toBe(false);
  });
  it("know the round trip before the first report", () => {
    expect(readSent(report(1).slice(4), 0).rttMs).toBe(9000);
    expect(readSent([], 0)).toEqual({ at: 0, bytes: 0, frames: 0, width: 0, height: 0, rttMs: null, lossPercent: null, heard: 0 });
  });
});
