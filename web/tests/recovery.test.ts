import { describe, expect, it } from "vitest";
import { ATTEMPT_MS, FROZEN_MS, HOPELESS_MS, STALL_MS } from "../src/recovery";
import type { Event } from "../src/recovery";
import { Bench } from "./bench";

describe("the first connection", () => {
  it("is made at once and shown at its first frame", () => {
    const bench = new Bench();
    expect(bench.send({ kind: "open" })).toEqual([{ do: "connect", id: 1, reason: "start" }]);
    expect(bench.send({ kind: "frame", id: 1 })).toEqual([{ do: "show", id: 1 }]);
  });

  it("has 3 s to deliver packets", () => {
    const bench = new Bench();
    bench.send({ kind: "open" });
    expect(bench.untilCommand()).toEqual([ATTEMPT_MS, [{ do: "drop", id: 1 }]]);
  });

  it("is given up when packets come without a picture", () => {
    const bench = new Bench();
    bench.send({ kind: "open" });
    for (let packets = 1; bench.state.attempt && bench.now < 9000; packets++) {
      bench.now += 250;
      bench.counters(1, packets, 0);
      bench.send({ kind: "tick" });
    }
    expect(bench.now).toBe(FROZEN_MS);
  });
});

describe("a stall", () => {
  it("is noticed after 1.2 s without packets and not before", () => {
    const bench = new Bench().playing();
    const [after, commands] = bench.untilCommand();
    expect(after).toBe(STALL_MS);
    // The old one is kept: its picture stays until there is another.
    expect(commands).toEqual([{ do: "connect", id: 2, reason: "stall" }]);
  });

  it("does not arise while packets come", () => {
    const bench = new Bench().playing();
    for (let packets = 11; packets < 111; packets++) {
      bench.now += 250;
      bench.counters(1, packets);
      bench.send({ kind: "tick" });
    }
    expect(bench.log).toEqual([]);
  });

  it("ends with the new picture in place of the old", () => {
    const bench = new Bench().playing();
    bench.untilCommand();
    bench.counters(2, 5);
    expect(bench.send({ kind: "frame", id: 2 })).toEqual([{ do: "show", id: 2 }, { do: "drop", id: 1 }]);
    expect(bench.state.showing?.id).toBe(2);
  });

  it("ends without one when the old link wakes up first", () => {
    const bench = new Bench().playing();
    bench.untilCommand();
    expect(bench.counters(1, 11)).toEqual([{ do: "drop", id: 2 }]);
    expect(bench.state.attempt).toBeNull();
  });

  it("also ends between two attempts when the old link wakes up", () => {
    const bench = new Bench().playing();
    bench.untilCommand();
    bench.refuse(2, 503);
    bench.counters(1, 11);
    expect(bench.state.retry).toBeNull();
    expect(bench.state.failures).toBe(0);
  });

  it("is not made of old news: late words about dropped links change nothing", () => {
    const bench = new Bench().playing();
    bench.untilCommand();
    bench.send({ kind: "frame", id: 2 });
    const before = bench.state;
    bench.counters(1, 99);
    bench.send({ kind: "lost", id: 1 });
    bench.refuse(1, 404);
    bench.send({ kind: "frame", id: 1 });
    expect(bench.state).toEqual(before);
  });
});

describe("retries", () => {
  it("come after 0.1, 0.25, 0.5, 1, 1 ... s, one at a time", () => {
    const bench = new Bench().playing();
    bench.send({ kind: "lost", id: 1 });
    const pauses: number[] = [];
    for (let id = 2; id < 9; id++) {
      bench.refuse(id, id % 2 ? 503 : null);
      expect(bench.state.attempt).toBeNull();
      const [pause, commands] = bench.untilCommand();
      pauses.push(pause);
      expect(commands).toEqual([{ do: "connect", id: id + 1, reason: "start" }]);
    }
    expect(pauses).toEqual([100, 250, 500, 1000, 1000, 1000, 1000]);
  });

  it("never leave two attempts in flight, whatever comes", () => {
    const bench = new Bench();
    let inFlight = 0;
    const kinds = ["open", "switch", "tick", "hurry", "frame", "lost", "counters", "refused"] as const;
    let seed = 1;
    const random = (n: number) => (seed = (seed * 48271) % 0x7fffffff) % n;
    for (let i = 0; i < 20_000; i++) {
      bench.now += random(700);
      const kind = kinds[random(kinds.length)]!;
      const id = Math.max(1, bench.state.lastId - random(3));
      const status = [null, 404, 409, 422, 503][random(5)]!;
      const event = { kind, id, status, chosen: false, packets: i, frames: i, watched: true };
      for (const command of bench.send(event as Event)) {
        if (command.do === "connect") inFlight++;
      }
      const open = new Set<number>();
      for (const c of bench.log) {
        if (c.do === "connect") open.add(c.id);
        if (c.do === "drop") open.delete(c.id);
      }
      bench.log = [...open].map((id) => ({ do: "connect", id, reason: "start" }));
      const known = [bench.state.showing?.id, bench.state.attempt?.id].filter((x) => x !== undefined);
      expect([...open].sort()).toEqual(known.sort());
    }
    expect(inFlight).toBeGreaterThan(100);
  });

  it("start over after a success", () => {
    const bench = new Bench().playing();
    bench.send({ kind: "lost", id: 1 });
    bench.refuse(2, null);
    bench.untilCommand();
    bench.send({ kind: "frame", id: 3 });
    bench.send({ kind: "lost", id: 3 });
    bench.refuse(4, null);
    expect(bench.untilCommand()[0]).toBe(100);
  });

  it("do not wait when the network is back", () => {
    const bench = new Bench().playing();
    bench.send({ kind: "lost", id: 1 });
    bench.refuse(2, null);
    expect(bench.send({ kind: "hurry" })).toHaveLength(1);
    expect(bench.send({ kind: "hurry" })).toEqual([]);
  });

  it("are slow where the server cannot serve this browser", () => {
    const bench = new Bench();
    bench.send({ kind: "open" });
    bench.refuse(1, 422);
    expect(bench.untilCommand()[0]).toBe(HOPELESS_MS);
  });

  it("bring the picture back within 5 s of an outage of 2.5 s", () => {
    const bench = new Bench().playing();
    const backAt = bench.now + 2500;
    const from = bench.now;
    while (bench.state.showing?.id === 1 && bench.now < 20_000) {
      bench.now += 50;
      const attempt = bench.state.attempt;
      if (attempt && bench.now < backAt) bench.refuse(attempt.id, null);
      // Half a second from the request to the first frame.
      else if (attempt && bench.now - attempt.since >= 500) bench.send({ kind: "frame", id: attempt.id });
      bench.send({ kind: "tick" });
    }
    expect(bench.now - from).toBeLessThan(5000);
  });
});
