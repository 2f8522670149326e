/** What the page of services says. */

import { expect, it } from "vitest";
import { expiryWords, modulePath, nodeWords, packetWords, summaryWords, userWords } from "../src/service-words";

const module = { user: "jane/x", name: "M_1.0", filter: null, expires_s: 5, state: "running", figures: {} };
const node = { name: "leaf1", address: "10.97.0.2", answers: true, restarts: 0, sessions: 1, modules: [module] };
const user = { name: "jane", address: null, address6: null, listen_ports: [], filter_prefixes: [], in_file: false };

it("nodes are counted, and those that are away", () => {
  expect(summaryWords([])).toBe("0 nodes · 0 modules");
  expect(summaryWords([node])).toBe("1 node · 1 module");
  expect(summaryWords([node, { ...node, answers: false }])).toBe("2 nodes · 2 modules · 1 away");
  expect(nodeWords({ ...node, restarts: 2 })).toBe("10.97.0.2 · 1 session · 2 restarts");
});

it("time is told in the unit that fits", () => {
  expect([0, 59, 60, 3599, 3600, 172799, 172800].map(expiryWords)).toEqual([
    "0 s left", "59 s left", "1 min left", "59 min left", "1 h left", "47 h left", "2 days left",
  ]);
});

it("packets can be read at a glance", () => {
  expect(packetWords(module)).toBe("0 packets");
  expect(packetWords({ ...module, figures: { packets: "1" } })).toBe("1 packet");
  expect(packetWords({ ...module, figures: { packets: "1842230" } })).toBe("1,842,230 packets");
});

it("users are told by what they may", () => {
  expect(userWords(user)).toBe("no address · claims by proof alone");
  const more = { ...user, address: "10.0.3.2", address6: "2001:db8::2", listen_ports: ["80", "90-99"], filter_prefixes: ["192.0.2.0/24"] };
  expect(userWords(more)).toBe("10.0.3.2, 2001:db8::2 · ports 80, 90-99 · claims 192.0.2.0/24");
});

it("names of others are no part of a path", () => {
  expect(modulePath("leaf1", module)).toBe("/api/services/nodes/leaf1/modules/jane%2Fx/M_1.0");
});
