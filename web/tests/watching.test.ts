/** What the watch page reads, beside the picture. */

import { describe, expect, it } from "vitest";
import { readCaption } from "../src/captions";
import { authorization, keepShare, shareOf } from "../src/credentials";
import { around } from "../src/dial";
import { EVENTS, linkTo } from "../src/link";
import { wordsFor } from "../src/notice";
import { sweep } from "../src/swipe";
import { addressOf, readTarget } from "../src/target";

const at = (path: string) => new URL(path, "https://edge.example");

describe("a caption", () => {
  it("is text and a time, whatever else is sent", () => {
    expect(readCaption('{"id": 3, "text": "Good evening", "duration_s": 2.5}')).toEqual({ text: "Good evening", duration_s: 2.5 });
    expect(readCaption('{"text": "", "duration_s": 0}')).toEqual({ text: "", duration_s: 0 });
    for (const data of ["", "{", "null", "[]", "3", '{"text": 3, "duration_s": 1}', '{"text": "a"}', '{"text": "a", "duration_s": -1}']) {
      expect(readCaption(data), data).toBeNull();
    }
  });
  it("comes by the stream that the answer links to", () => {
    const header = `</whep/a/1/change>; rel="urn:anabranch:whep:ext:change", </whep/a/1/sse?section=0>; rel="${EVENTS}"; events="active,caption"`;
    expect(linkTo(header, EVENTS)).toBe("/whep/a/1/sse?section=0");
  });
});

describe("a sweep", () => {
  it("turns to the next channel as a page is turned", () => {
    expect(sweep(-120, 10, 200)).toBe(1);
    expect(sweep(120, -10, 200)).toBe(-1);
  });
  it("is neither a tap, nor a scroll, nor a hold", () => {
    expect(sweep(-20, 0, 100)).toBeNull();
    expect(sweep(-80, 100, 200)).toBeNull();
    expect(sweep(-120, 0, 2000)).toBeNull();
  });
});

describe("the dial", () => {
  const list = [..."abcdefghi"];
  it("has the channel in the middle, round and round", () => {
    expect(around(list, 4, 2).join("")).toBe("cdefg");
    expect(around(list, 0, 2).join("")).toBe("hiabc");
    expect(around(list, 8, 2).join("")).toBe("ghiab");
  });
  it("shows few channels in their order, and none twice", () => {
    expect(around([..."abcde"], 0, 2).join("")).toBe("abcde");
    expect(around(["a"], 0, 2)).toEqual(["a"]);
  });
});

describe("a share link", () => {
  it("has its secret in the fragment", () => {
    expect(readTarget(at("/watch/a#share=abs_x"), false).share).toBe("abs_x");
    expect(readTarget(at("/watch/a?share=abs_x"), false).share).toBeNull();
    expect(readTarget(at("/watch/a#share="), false).share).toBeNull();
  });
  it("is for its own channel", () => {
    keepShare("a", "abs_x");
    keepShare("a", null); // the same page without it
    expect(shareOf("a")).toBe("abs_x");
    expect(authorization("a")).toEqual({ authorization: "Bearer abs_x" });
    expect(authorization("b")).toEqual({});
    expect(authorization()).toEqual({});
  });
  it("stays out of other channels' addresses, and comes back with its own", () => {
    const away = addressOf(at("/watch/a#share=abs_x"), { channel: "b", rendition: null }, shareOf("b"));
    expect(away.href).toBe("https://edge.example/watch/b");
    expect(addressOf(away, { channel: "a", rendition: null }, shareOf("a")).href).toBe("https://edge.example/watch/a#share=abs_x");
    expect(addressOf(at("/watch/a#share=abs_x"), { channel: "a", rendition: "low" }).hash).toBe("#share=abs_x");
  });
  it("that opens nothing any more says so", () => {
    expect(wordsFor("ended", "a", null, true)?.text).toContain("link");
    expect(wordsFor("ended", "a", null, false)?.text).toContain("no channel");
  });
});
