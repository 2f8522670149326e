/** Another channel over the connection that there is. */

import { describe, expect, it } from "vitest";
import { DIGIT_MS, dial, isWhole, neighbour, stepOf } from "../src/dial";
import { CHANGE, linkTo } from "../src/link";
import { addressOf } from "../src/target";
import { Follower } from "../src/wish";
import type { Changed, Wish } from "../src/wish";

describe("the Link header", () => {
  const header =
    `</whep/a/1/change>; rel="${CHANGE}", ` +
    `</whep/a/1/sse?section=0>; rel="urn:ietf:params:whep:ext:core:server-sent-events"; events="active,layers"`;
  it("leads to what a relation names", () => {
    expect(linkTo(header, CHANGE)).toBe("/whep/a/1/change");
    expect(linkTo(header, "urn:ietf:params:whep:ext:core:server-sent-events")).toBe("/whep/a/1/sse?section=0");
  });
  it("may be written in other ways", () => {
    expect(linkTo(`<x,y>;title="a, <b>; rel=z; b";rel=${CHANGE}`, CHANGE)).toBe("x,y");
    expect(linkTo(`<u> ; REL="next ${CHANGE}"`, CHANGE)).toBe("u");
  });
  it("leads nowhere where there is none", () => {
    for (const none of [null, "", "nonsense", "<x>", '<x>; rel="other"', `<x>; title="rel=${CHANGE}"`]) {
      expect(linkTo(none, CHANGE)).toBeNull();
    }
  });
});

describe("keys", () => {
  it("lead up and down, round and round", () => {
    expect([stepOf("ArrowUp"), stepOf("ChannelDown"), stepOf("x")]).toEqual([1, -1, null]);
    const list = ["a", "b", "c"];
    expect(neighbour(list, "a", 1)).toBe("b");
    expect(neighbour(list, "a", -1)).toBe("c");
    expect(neighbour(list, "c", 1)).toBe("a");
    expect([neighbour(list, "gone", 1), neighbour(list, undefined, -1)]).toEqual(["a", "c"]);
    expect([neighbour(["a"], "a", 1), neighbour([], undefined, 1)]).toEqual([null, null]);
  });
  it("dial numbers of several digits", () => {
    const one = dial(null, 1, 30, 0)!;
    expect(one.number).toBe(1);
    expect(isWhole(one, 9)).toBe(true);
    expect(isWhole(one, 30)).toBe(false);
    expect(dial(one, 2, 30, DIGIT_MS - 1)?.number).toBe(12);
    expect(dial(one, 2, 30, DIGIT_MS)?.number).toBe(2);
    // 47 is none of 30: a new number begins.
    expect(dial({ number: 4, at: 0 }, 7, 30, 1)?.number).toBe(7);
  });
  it("dial no channel that is not there", () => {
    expect(dial(null, 0, 30, 0)).toBeNull();
    expect(dial(null, 7, 5, 0)).toBeNull();
    expect(dial({ number: 1, at: 0 }, 0, 30, 1)?.number).toBe(10);
  });
});

describe("the address", () => {
  const after = (href: string, wish: Wish) => addressOf(new URL(href), wish).href;
  it("follows the wish and keeps the rest", () => {
    expect(after("https://e/watch/a?embed=1", { channel: "b c", rendition: null })).toBe("https://e/watch/b%20c?embed=1");
    expect(after("https://e/watch/a?rendition=low", { channel: "a", rendition: null })).toBe("https://e/watch/a");
    expect(after("https://e/watch/a", { channel: "a", rendition: "low" })).toBe("https://e/watch/a?rendition=low");
  });
  it("is left alone where it is right", () => {
    expect(after("https://e/watch/a/", { channel: "a", rendition: null })).toBe("https://e/watch/a/");
  });
});

/** A server that answers when the test says so. */
class Server {
  asked: Wish[] = [];
  #answer: ((changed: Changed) => void) | null = null;

  change(wish: Wish): Promise<Changed> {
    this.asked.push(wish);
    return new Promise((resolve) => (this.#answer = resolve));
  }

  async answer(changed: Changed): Promise<void> {
    this.#answer?.(changed);
    // What waits for the answer goes on before the next step of the test.
    for (let i = 0; i < 5; i++) await Promise.resolve();
  }
}

describe("a follower", () => {
  const wish = (channel: string): Wish => ({ channel, rendition: null });
  const YES: Changed = { ok: true, rendition: "high", waits: false };
  const NO: Changed = { ok: false, retryMs: null };
  const setUp = () => {
    const server = new Server();
    const pauses: number[] = [];
    const follower = new Follower(server, wish("a"), async (ms) => void pauses.push(ms));
    return { server, follower, pauses };
  };

  it("asks for what is wished", async () => {
    const { server, follower } = setUp();
    const done = follower.follow(wish("b"));
    await server.answer(YES);
    expect(await done).toBe(true);
    expect(server.asked).toEqual([wish("b")]);
    expect(follower.shown).toEqual(wish("b"));
    expect(await follower.follow(wish("b"))).toBe(true);
    expect(server.asked).toHaveLength(1);
  });

  it("asks for one thing at a time, and the newest wish", async () => {
    const { server, follower } = setUp();
    const first = follower.follow(wish("b"));
    expect(await follower.follow(wish("c"))).toBeNull();
    expect(await follower.follow(wish("d"))).toBeNull();
    await server.answer(YES);
    await server.answer(YES);
    expect(await first).toBe(true);
    expect(server.asked).toEqual([wish("b"), wish("d")]);
  });

  it("comes back where it began", async () => {
    const { server, follower } = setUp();
    const first = follower.follow(wish("b"));
    void follower.follow(wish("a"));
    await server.answer(YES);
    await server.answer(YES);
    expect(await first).toBe(true);
    expect(server.asked).toEqual([wish("b"), wish("a")]);
    expect(follower.shown).toEqual(wish("a"));
  });

  it("waits as long as the server asks", async () => {
    const { server, follower, pauses } = setUp();
    const done = follower.follow(wish("b"));
    await server.answer({ ok: false, retryMs: 1000 });
    await server.answer(YES);
    expect(await done).toBe(true);
    expect(pauses).toEqual([1000]);
    expect(server.asked).toHaveLength(2);
  });

  it("tells that it cannot be, and knows what is shown", async () => {
    const { server, follower } = setUp();
    const done = follower.follow(wish("b"));
    await server.answer(NO);
    expect(await done).toBe(false);
    expect(follower.shown).toEqual(wish("a"));
  });

  it("makes sure after a failure that a newer wish came into", async () => {
    const { server, follower } = setUp();
    const done = follower.follow(wish("b"));
    void follower.follow(wish("a"));
    await server.answer(NO);
    // Perhaps b was carried out all the same.
    expect(server.asked).toEqual([wish("b"), wish("a")]);
    await server.answer(YES);
    expect(await done).toBe(true);
  });

  it("stops with its session", async () => {
    const { server, follower } = setUp();
    const done = follower.follow(wish("b"));
    void follower.follow(wish("c"));
    follower.stop();
    await server.answer(YES);
    expect(await done).toBe(false);
    expect(server.asked).toHaveLength(1);
  });
});
