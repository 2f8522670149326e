/** What the pages of one's account and of people say. */

import { describe, expect, it } from "vitest";
import { accountFacts, found, removalWords } from "../src/accounts";
import type { Account } from "../src/accounts";
import { Refused } from "../src/api";
import { ago, dayLabel, remaining } from "../src/moments";
import { drawPassword, refusedField, refusedPart } from "../src/passwords";
import { ROLES, roleLabel, rolesUpTo } from "../src/roles";
import { tokenFacts } from "../src/tokens";

const DAY = 86400;

describe("moments", () => {
  it("say how long something holds", () => {
    expect(remaining(null, 0)).toBe("until taken back");
    expect(remaining(100, 100)).toBe("expired");
    expect(remaining(130, 100)).toBe("1 min left");
    expect(remaining(100 + 3 * 3600, 100)).toBe("3 h left");
    expect(remaining(100 + 6.9 * DAY, 100)).toBe("7 days left");
  });
  it("say when something was, no finer than is known", () => {
    const now = 1_800_000_000;
    const past = (seconds: number) => ago(now - seconds, now);
    expect(past(-5)).toBe("just now"); // two clocks
    expect(past(599)).toBe("just now");
    expect(past(1500)).toBe("25 min ago");
    expect(past(3 * 3600)).toBe("3 h ago");
    expect(past(5 * DAY)).toBe("5 days ago");
    expect(past(400 * DAY)).toBe(`on ${dayLabel(now - 400 * DAY)}`);
    expect(dayLabel(now)).toMatch(/2027$/);
  });
});

describe("roles", () => {
  it("of a token are none above its owner's", () => {
    expect(rolesUpTo("viewer")).toEqual(["viewer"]);
    expect(rolesUpTo("operator")).toEqual(["viewer", "producer", "operator"]);
    expect(rolesUpTo("admin")).toHaveLength(ROLES.length);
    expect(rolesUpTo("archivist" as never)).toEqual([]);
  });
  it("have words, and are shown as they are where there are none", () => {
    expect(roleLabel("admin")).toBe("Admin");
    expect(roleLabel("archivist")).toBe("archivist");
  });
});

describe("a token", () => {
  const token = { id: "1", name: "recorder", role: "viewer" as const, account: "ines", created: 0 };
  it("says how long it is good, and whether anybody uses it", () => {
    expect(tokenFacts({ ...token, expires: null, used: null }, 0)).toBe("until revoked · not used yet");
    expect(tokenFacts({ ...token, expires: 32 * DAY, used: 0 }, 2 * DAY)).toBe("30 days left · used 2 days ago");
  });
});

describe("a password that is suggested", () => {
  it("is another each time, and good enough for the server's rules", () => {
    const drawn = new Set(Array.from({ length: 200 }, () => drawPassword()));
    expect(drawn.size).toBe(200);
    for (const each of drawn) expect(each).toMatch(/^[a-km-np-z2-9]{5}(-[a-km-np-z2-9]{5}){3}$/);
    expect(new Set([...drawn].join("")).size).toBe(33); // all the letters, and '-'
  });
});

describe("a refusal", () => {
  it("of a change of one's password is about the old one or the new one", () => {
    expect(refusedField(new Refused(401, "the old password is wrong"))).toBe("old");
    expect(refusedField(new Refused(429, "too many tries", 30))).toBe("old");
    expect(refusedField(new Refused(422, "a password has 10 to 200 characters"))).toBe("new");
    for (const status of [null, 403, 409, 507]) expect(refusedField(new Refused(status))).toBeNull();
    expect(refusedField(new Error("x"))).toBeNull();
  });
  it("of a change of an account is about its name, its role or its password", () => {
    expect(refusedPart(new Refused(409, "there is an account named ines already"))).toBe("name");
    expect(refusedPart(new Refused(409, "the last admin stays one: make another first"))).toBe("role");
    expect(refusedPart(new Refused(422, "the name 'Password' is not allowed: use 1 to 40 of a-z"))).toBe("name");
    for (const words of ["a password has 10 to 200 characters", "this password is one of those", "password: too long"]) {
      expect(refusedPart(new Refused(422, words)), words).toBe("password");
    }
    expect(refusedPart(new Refused(507))).toBeNull();
    expect(refusedPart(new Error("x"))).toBeNull();
  });
});

describe("an account", () => {
  const of = (name: string, change: Partial<Account> = {}): Account => ({
    ...{ name, role: "viewer", created: 0, seen: null, channels: [] },
    ...change,
  });
  it("is found by parts of its name and its role", () => {
    const all = [of("anna", { role: "admin" }), of("ines", { role: "producer" }), of("paul"), of("paula")];
    const names = (words: string, most?: number) => found(all, words, most).map(({ name }) => name);
    expect(names("")).toEqual(["anna", "ines", "paul", "paula"]);
    expect(names(" PAUL ")).toEqual(["paul", "paula"]);
    expect(names("adm")).toEqual(["anna"]);
    expect(names("viewer ula")).toEqual(["paula"]);
    expect(names("nobody")).toEqual([]);
    expect(names("", 2)).toEqual(["anna", "ines"]);
  });
  it("says when it was here last and what it owns", () => {
    expect(accountFacts(of("ines"), 0)).toBe("never signed in");
    expect(accountFacts(of("ines", { seen: 0, channels: ["a"] }), 3 * DAY)).toBe("signed in 3 days ago · 1 channel");
    expect(accountFacts(of("ines", { channels: ["a", "b"] }), 0)).toBe("never signed in · 2 channels");
  });
  it("that is to be removed says what ends with it and what stays", () => {
    expect(removalWords(of("ines"), false)).toBe("Its sessions and API tokens end at once.");
    expect(removalWords(of("ines", { channels: ["a"] }), false)).toContain("Its channel stays");
    expect(removalWords(of("ines", { channels: ["a", "b"] }), true)).toMatch(/^This is you\. .*2 channels stay/);
  });
});
