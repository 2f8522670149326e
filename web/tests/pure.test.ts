import { describe, expect, it } from "vitest";
import { concernsList } from "../src/events";
import { bitrateLabel, hueOf, median, monogram, percentLabel, stateLabel, viewersLabel } from "../src/format";
import { Meter, readCounters } from "../src/stats";
import { embedCode, readTarget, watchPath, whepPath } from "../src/target";
import { EVERY_MS, pauseAfter, thumbnailPath } from "../src/thumbnails";
import { bestOffset } from "../src/time";
import { askForStereo } from "../src/whep";

const target = (path: string, framed = false) => readTarget(new URL(path, "https://edge.example"), framed);

describe("target", () => {
  it("reads channel, rendition and embedding", () => {
    expect(target("/watch/test1?rendition=low&embed=1")).toEqual({ channel: "test1", rendition: "low", embed: true, share: null });
    expect(target("/watch/a%20b/")).toEqual({ channel: "a b", rendition: null, embed: false, share: null });
    expect(target("/watch/x", true).embed).toBe(true);
    expect(target("/watch/x?embed=0", true).embed).toBe(false);
  });
  it("finds no channel where there is none", () => {
    for (const path of ["/watch/", "/watch.html", "/watch/a/b", "/watch/%E0%A4"]) expect(target(path).channel).toBe("");
  });
  it("escapes", () => {
    expect(whepPath("a/b", "x&y")).toBe("/whep/a%2Fb?rendition=x%26y");
    expect(watchPath("a b")).toBe("/watch/a%20b");
    expect(embedCode("https://e", "c", `"><script>`)).toContain('title="&quot;>&lt;script>"');
  });
});

describe("stereo", () => {
  const sdp = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtcp-mux\r\n";
  it("is asked for once, on Opus alone", () => {
    const once = askForStereo(sdp);
    expect(once).toContain("a=fmtp:111 minptime=10;useinbandfec=1;stereo=1\r\na=rtcp-mux");
    expect(askForStereo(once)).toBe(once);
    expect(askForStereo("v=0\r\n")).toBe("v=0\r\n");
  });
});

describe("statistics", () => {
  const report = (t: number, lost = 0) => [
    { type: "inbound-rtp", kind: "video", packetsReceived: 100 * t, packetsLost: lost, bytesReceived: 125_000 * t, framesDecoded: 25 * t, frameWidth: 640, frameHeight: 360, jitterBufferDelay: 0.5 * t, jitterBufferEmittedCount: 25 * t },
    { type: "inbound-rtp", kind: "audio", packetsReceived: 50 * t, packetsLost: 0, bytesReceived: 0 },
    { type: "candidate-pair", nominated: true, currentRoundTripTime: 0.02 },
    { type: "candidate-pair", nominated: false, currentRoundTripTime: 9 },
  ];
  it("become rates", () => {
    const meter = new Meter();
    expect(meter.figures()).toBeNull();
    for (let t = 0; t <= 10; t += 0.25) meter.push(readCounters(report(t), t * 1000));
    expect(meter.figures()).toEqual({ bitrateKbps: 1000, lossPercent: 0, fps: 25, width: 640, height: 360, rttMs: 20, estimatedDelayMs: 30 });
  });
  it("forget losses after the window", () => {
    const meter = new Meter();
    meter.push(readCounters(report(0), 0));
    meter.push(readCounters(report(1, 150), 1000));
    expect(meter.figures()?.lossPercent).toBe(50);
    for (let t = 2; t <= 7; t++) meter.push(readCounters(report(t, 150), t * 1000));
    expect(meter.figures()?.lossPercent).toBe(0);
  });
});

describe("words", () => {
  it("read well", () => {
    expect([bitrateLabel(999.4), bitrateLabel(1234)]).toEqual(["999 kb/s", "1.2 Mb/s"]);
    expect([percentLabel(0), percentLabel(0.01), percentLabel(2.34)]).toEqual(["0.0 %", "< 0.1 %", "2.3 %"]);
    expect([viewersLabel(0), viewersLabel(1)]).toEqual(["0 viewers", "1 viewer"]);
    expect([stateLabel("slate"), stateLabel("novel")]).toEqual(["Waiting for source", "novel"]);
    expect([monogram("Test channel 1"), monogram("Test channel 10"), monogram("Late show 2026"), monogram("studio"), monogram("🎥 Éclair <b>"), monogram(" ")]).toEqual(["T1", "T10", "L2", "S", "ÉB", ""]);
    expect(hueOf("test1")).not.toBe(hueOf("test2"));
    expect([median([3, 1, 2]), median([4, 1]), median([])]).toEqual([2, 2.5, null]);
  });
});

it("a channel without a picture is asked for one less and less often", () => {
  expect([0, 1, 2, 3, 1000].map(pauseAfter)).toEqual([EVERY_MS, 20_000, 40_000, 60_000, 60_000]);
  expect(thumbnailPath("a/b c")).toBe("/api/channels/a%2Fb%20c/thumbnail.jpg");
});

it("the offset is that of the shortest round trip", () => {
  expect(bestOffset([{ roundTrip: 9, offset: 1 }, { roundTrip: 2, offset: 5 }, { roundTrip: 3, offset: 7 }])).toBe(5);
  expect(bestOffset([])).toBeNull();
});

it("events of channels and seats concern the list", () => {
  expect(["channel.live", "seat.taken", "node.up"].map((kind) => concernsList(JSON.stringify({ kind })))).toEqual([true, true, false]);
  expect(concernsList("not json")).toBe(false);
});
