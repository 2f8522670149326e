/** Recovery where something other than a stall calls for a new connection. */

import { describe, expect, it } from "vitest";
import { Bench } from "./bench";

describe("a lost connection", () => {
  it("is replaced at once", () => {
    const bench = new Bench().playing();
    expect(bench.send({ kind: "lost", id: 1 })).toEqual([{ do: "connect", id: 2, reason: "start" }]);
  });

  it("turns an attempt for comfort into one that must succeed", () => {
    const bench = new Bench().playing();
    bench.send({ kind: "switch" });
    bench.send({ kind: "lost", id: 1 });
    expect(bench.refuse(2, 503)).toEqual([{ do: "drop", id: 2 }]);
    expect(bench.state.retry).not.toBeNull();
  });
});

describe("an unknown channel", () => {
  it("ends it, until it is opened again", () => {
    const bench = new Bench().playing();
    bench.untilCommand();
    expect(bench.refuse(2, 404)).toEqual([{ do: "drop", id: 2 }, { do: "drop", id: 1 }, { do: "end" }]);
    expect(bench.untilCommand()[0]).toBe(Infinity);
    expect(bench.send({ kind: "open" })).toEqual([{ do: "connect", id: 3, reason: "start" }]);
  });

  it("may be an unknown rendition in the address: asked for once more without", () => {
    const bench = new Bench();
    bench.send({ kind: "open" });
    expect(bench.refuse(1, 404, true)).toEqual([
      { do: "drop", id: 1 },
      { do: "forget" },
      { do: "connect", id: 2, reason: "start" },
    ]);
    expect(bench.refuse(2, 404, false).at(-1)).toEqual({ do: "end" });
  });
});

describe("another rendition", () => {
  it("replaces the present one though that still delivers", () => {
    const bench = new Bench().playing();
    bench.send({ kind: "switch" });
    bench.now += 250;
    expect(bench.counters(1, 20)).toEqual([]);
    expect(bench.send({ kind: "frame", id: 2 })).toEqual([{ do: "show", id: 2 }, { do: "drop", id: 1 }]);
  });

  it("leaves the present one in place when it cannot be had", () => {
    const bench = new Bench().playing();
    bench.send({ kind: "switch" });
    expect(bench.refuse(2, 404, true)).toEqual([{ do: "drop", id: 2 }, { do: "revert" }]);
    expect(bench.state.showing?.id).toBe(1);
  });

  it("is tried twice more where nothing comes, and then left", () => {
    const bench = new Bench().playing();
    bench.send({ kind: "switch" });
    const dropped: unknown[] = [];
    for (let at = 0; at < 60 && bench.state.showing?.id === 1; at++) {
      bench.now += 250;
      bench.counters(1, 20 + at);
      dropped.push(...bench.send({ kind: "tick" }));
    }
    expect(dropped).toEqual([
      { do: "drop", id: 2 },
      { do: "connect", id: 3, reason: "switch" },
      { do: "drop", id: 3 },
      { do: "connect", id: 4, reason: "switch" },
      { do: "drop", id: 4 },
      { do: "revert" },
    ]);
    expect(bench.state).toMatchObject({ attempt: null, retry: null, failures: 0 });
  });

  it("chosen twice in a row leaves one attempt", () => {
    const bench = new Bench().playing();
    bench.send({ kind: "switch" });
    expect(bench.send({ kind: "switch" })).toEqual([
      { do: "drop", id: 2 },
      { do: "connect", id: 3, reason: "switch" },
    ]);
  });
});

describe("a frozen picture", () => {
  const run = (watched: boolean) => {
    const bench = new Bench().playing();
    for (let packets = 11; !bench.log.length && bench.now < 20_000; packets++) {
      bench.now += 250;
      bench.counters(1, packets, 10, watched);
      bench.send({ kind: "tick" });
    }
    return bench;
  };

  it("is replaced although packets come", () => {
    const bench = run(true);
    expect(bench.log).toEqual([{ do: "connect", id: 2, reason: "frozen" }]);
    expect(bench.counters(1, 1000, 10)).toEqual([]);
  });

  it("is no matter where nobody looks", () => expect(run(false).log).toEqual([]));
});
