/** The live page of NetMonitor: what the nodes on a path count, by source, destination and TTL. */

import { byId, make, say, sayOrHide, whenParsed } from "./dom";
import { CHART_POINTS, atNode, chartLines, counted, numbers, rateWords } from "./flows";
import type { Seen } from "./flows";

interface Node {
  node: string;
  address: string;
  state: string;
  packets: number;
  flows: number;
  lost: number;
  rate: number;
  history: (number | null)[];
}

interface Flow {
  source: string;
  destination: string;
  seen: Seen[];
}

interface Snapshot {
  towards: string;
  destination: string;
  packets: string;
  trouble: string | null;
  at: number | null;
  nodes: Node[];
  flows: Flow[];
}

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const CHART_WIDTH = 240;
const CHART_HEIGHT = 56;

function svg(name: string, attributes: Record<string, string>): SVGElement {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function chart(history: readonly (number | null)[]): HTMLElement {
  const drawn = svg("svg", { viewBox: `0 0 ${CHART_WIDTH} ${CHART_HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const line of chartLines(history, CHART_WIDTH, CHART_HEIGHT)) {
    const path = line.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
    const first = line[0]![0].toFixed(1);
    const last = line.at(-1)![0].toFixed(1);
    drawn.append(svg("path", { class: "area", d: `M${first} ${CHART_HEIGHT}L${path}L${last} ${CHART_HEIGHT}Z` }));
    drawn.append(svg("path", { class: "line", d: `M${path}` }));
  }
  const box = make("div", "chart");
  box.append(drawn);
  return box;
}

function nodeCard(node: Node): HTMLElement {
  const card = make("li", "node");
  card.dataset.state = node.state;
  const title = make("div", "", make("h3", "", node.node), make("p", "address", node.address));
  const badge = make("span", "badge", node.state);
  badge.dataset.state = "failed";
  const rate = make("p", "rate", rateWords(node.rate), make("small", "", " packets/s"));
  const peak = Math.max(0, ...node.history.slice(-CHART_POINTS).map((each) => each ?? 0));
  const facts = make("p", "facts", `${counted(node.packets, "packet")} · ${counted(node.flows, "flow")} · peak ${rateWords(peak)}/s`);
  if (node.lost > 0) facts.append(" · ", make("span", "lost", `${numbers.format(node.lost)} not counted`));
  card.append(title, badge, rate, chart(node.history), facts);
  return card;
}

function tableHead(nodes: readonly Node[]): HTMLElement {
  const row = make("tr", "");
  for (const name of ["Source", "Destination"]) row.append(header(name, ""));
  for (const { node } of nodes) row.append(header(`At ${node}`, "at"), header("TTL", ""));
  return row;
}

function header(words: string, kind: string): HTMLElement {
  const made = make("th", kind, words);
  made.setAttribute("scope", "col");
  return made;
}

function flowRow(flow: Flow, nodes: readonly Node[]): HTMLElement {
  const source = make("th", "", flow.source);
  source.setAttribute("scope", "row");
  const row = make("tr", "", source, make("td", "", flow.destination));
  for (const { node } of nodes) {
    const here = atNode(flow.seen, node);
    if (here === null) {
      const none = make("span", "nothing", "–");
      none.title = "Not among this node's largest flows";
      row.append(make("td", "at", none), make("td", ""));
      continue;
    }
    row.append(
      make("td", "at", `${rateWords(here.rate)}/s`, make("small", "", counted(here.packets, "packet"))),
      make("td", "", here.ttls),
    );
  }
  return row;
}

function show(snapshot: Snapshot): void {
  const { nodes, flows } = snapshot;
  say(byId("title"), `Packets to ${snapshot.destination}`);
  document.title = `${snapshot.destination} · NetMonitor`;
  say(byId("summary"), `${snapshot.packets} · ${counted(nodes.length, "node")} on the way to ${snapshot.towards}`);
  sayOrHide(byId("trouble"), snapshot.trouble);
  byId("nodes").replaceChildren(...nodes.map(nodeCard));
  byId("head").replaceChildren(tableHead(nodes));
  byId("flows").replaceChildren(...flows.map((flow) => flowRow(flow, nodes)));
  byId("flows-box").hidden = flows.length === 0;
  byId("no-flows").hidden = flows.length > 0;
}

async function refresh(): Promise<void> {
  try {
    const response = await fetch("/api/monitor", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!response.ok) throw new Error(String(response.status));
    show((await response.json()) as Snapshot);
  } catch {
    sayOrHide(byId("trouble"), "The monitor does not answer: these figures are old.");
  }
}

async function run(): Promise<void> {
  for (;;) {
    // What somebody has selected, to copy an address, stays.
    if (!document.hidden && (getSelection()?.isCollapsed ?? true)) await refresh();
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

whenParsed(() => void run());
