import { expect, it } from "vitest";
import { inStyleOrder, standalone } from "../vite.config";

const sheet = (name: string) => `\n    <link rel="stylesheet" crossorigin href="/assets/${name}-b_UDls-e.css">`;
const page = (...names: string[]) => `<head><script></script>${names.map(sheet).join("")}\n  </head>`;

it("a built page's own style sheet has the last word", () => {
  expect(inStyleOrder(page("login", "base", "forms"))).toBe(page("base", "forms", "login"));
  expect(inStyleOrder(page("account", "base", "forms", "studio"))).toBe(page("base", "forms", "studio", "account"));
  expect(inStyleOrder(page("publish", "base", "forms", "studio"))).toBe(page("base", "forms", "publish", "studio"));
  expect(inStyleOrder("<head></head>")).toBe("<head></head>");
});

it("a script for a page's head needs no other file and ends no element", async () => {
  const code = await standalone("./src/opening.ts");
  expect(code).toContain("anabranchOpening");
  expect(code).not.toMatch(/\bimport\b|<\/script|<!--/);
  expect(code.length).toBeLessThan(16_000);
});
