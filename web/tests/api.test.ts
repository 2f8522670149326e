/** How pages ask the API: who they say they are, and what becomes of a refusal. */

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Refused, ask } from "../src/api";
import { keepShare, keepToken, token } from "../src/credentials";
import { enterToken } from "../src/me";

interface Sent {
  path: string;
  headers: Record<string, string>;
  body: string | undefined;
}

let sent: Sent[] = [];
let answers: (Response | Error)[] = [];

const json = (body: unknown, status = 200, headers: Record<string, string> = {}) =>
  new Response(status === 204 ? null : JSON.stringify(body), { status, headers });

beforeEach(() => {
  const kept = new Map<string, string>();
  vi.stubGlobal("sessionStorage", {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
    removeItem: (key: string) => void kept.delete(key),
  });
  sent = [];
  vi.stubGlobal("fetch", (path: string, init: RequestInit) => {
    sent.push({ path, headers: init.headers as Record<string, string>, body: init.body as string | undefined });
    const answer = answers.shift() ?? new Error("offline");
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
  });
});
afterEach(() => vi.unstubAllGlobals());

describe("a request", () => {
  it("names nobody where there is nobody: the cookie goes by itself", async () => {
    answers = [json({ channels: [] })];
    expect(await ask("GET", "/api/channels")).toEqual({ channels: [] });
    expect(sent[0]!.headers).toEqual({ accept: "application/json" });
  });

  it("carries a link's secret to its own channel, and a token everywhere", async () => {
    keepShare("secret", "abs_1");
    answers = [json({}), json({}), json({}), json(null, 204)];
    await ask("GET", "/api/channels/secret", { channel: "secret" });
    await ask("GET", "/api/channels/other", { channel: "other" });
    keepToken("tok");
    await ask("GET", "/api/channels/secret", { channel: "secret" });
    expect(await ask("DELETE", "/api/channels/other")).toBeNull();
    expect(sent.map(({ headers }) => headers.authorization)).toEqual([
      ...["Bearer abs_1", undefined, "Bearer tok", "Bearer tok"],
    ]);
  });

  it("that is refused tells why", async () => {
    answers = [json({ title: "Conflict", detail: "the name is taken" }, 409), json({}, 429, { "retry-after": "7" })];
    const taken = await ask("POST", "/api/channels", { body: { name: "a" } }).catch((e: unknown) => e);
    expect(taken).toBeInstanceOf(Refused);
    expect(taken).toMatchObject({ status: 409, message: "the name is taken", retryAfterS: null });
    expect(sent[0]).toMatchObject({ body: '{"name":"a"}', headers: { "content-type": "application/json" } });
    expect(await ask("POST", "/api/login").catch((e: unknown) => e)).toMatchObject({ status: 429, retryAfterS: 7 });
    answers = [new Response("<h1>Bad gateway</h1>", { status: 502 }), new Error("no route")];
    expect(await ask("GET", "/a").catch((e: unknown) => e)).toMatchObject({ status: 502 });
    expect(await ask("GET", "/a").catch((e: unknown) => e)).toMatchObject({ status: null });
  });
});

describe("a token that the server does not know any more", () => {
  it("is forgotten, and what is public still comes", async () => {
    keepToken("old");
    answers = [json({ detail: "no" }, 401), json({ channels: [] })];
    expect(await ask("GET", "/api/channels")).toEqual({ channels: [] });
    expect(sent.map(({ headers }) => headers.authorization)).toEqual(["Bearer old", undefined]);
    expect(token()).toBeNull();
  });

  it("is not sent twice where nothing helps", async () => {
    answers = [json({ detail: "no" }, 401)];
    expect(await ask("GET", "/api/site").catch((e: unknown) => e)).toMatchObject({ status: 401 });
    expect(sent.length).toBe(1);
  });
});

describe("entering a token", () => {
  const me = { signed_in: true, name: null, role: "admin" };
  it("keeps a good one", async () => {
    answers = [json(me)];
    expect(await enterToken("good")).toEqual(me);
    expect(token()).toBe("good");
  });
  it("keeps no other", async () => {
    answers = [json({ detail: "no" }, 401), json({ ...me, signed_in: false })];
    expect(await enterToken("bad")).toBeNull();
    expect(token()).toBeNull();
    // The cookie's session answers instead: it is not what was entered.
    answers = [json({ detail: "no" }, 401), json(me)];
    expect(await enterToken("bad")).toBeNull();
    await expect(enterToken("any")).rejects.toMatchObject({ status: null });
    expect(token()).toBeNull();
  });
});
