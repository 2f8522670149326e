/** The page /services: service nodes, the modules on them, and whose they are; for operators. */

import { showAccount } from "./account";
import { Refused, ask, wordsOf } from "./api";
import { confirmed } from "./confirm";
import { button, byId, make, say, sayOrHide, whenParsed } from "./dom";
import { fetchMe, loginPath } from "./me";
import type { Me } from "./me";
import { expiryWords, modulePath, nodeWords, packetWords, summaryWords, userWords } from "./service-words";
import type { Module, ServiceNode, ServiceUser } from "./service-words";
import { toast } from "./toast";

const EVERY_MS = 3000;

const who = fetchMe();
(who as Promise<unknown>).catch(() => undefined);

class ServicesPage {
  readonly #nodes = byId("nodes");
  readonly #users = byId("users");
  readonly #log = byId<HTMLDialogElement>("log");
  /** What was unfolded stays so when the figures are drawn anew. */
  readonly #open = new Set<string>();
  #drawn = "";

  async run(): Promise<void> {
    for (;;) {
      if (!document.hidden) await this.refresh();
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    }
  }

  async refresh(): Promise<void> {
    try {
      const [{ enabled, nodes }, users] = await Promise.all([
        ask<{ enabled: boolean; nodes: ServiceNode[] }>("GET", "/api/services"),
        ask<ServiceUser[]>("GET", "/api/services/users"),
      ]);
      sayOrHide(byId("trouble"), null);
      byId("none").hidden = enabled;
      byId("page").hidden = !enabled;
      if (enabled) this.#show(nodes, users);
    } catch (error) {
      this.#failed(error);
    }
  }

  #show(nodes: ServiceNode[], users: ServiceUser[]): void {
    say(byId("summary"), summaryWords(nodes));
    const now = JSON.stringify([nodes, users]);
    // Nothing is torn from under a pointer or a focus where nothing has changed.
    if (now === this.#drawn || this.#nodes.contains(document.activeElement)) return;
    this.#drawn = now;
    this.#nodes.replaceChildren(...nodes.map((node) => this.#panel(node)));
    this.#users.replaceChildren(...users.map((user) => this.#user(user)));
    this.#users.hidden = users.length === 0;
    byId("no-users").hidden = users.length > 0;
  }

  #panel(node: ServiceNode): HTMLElement {
    const badge = make("span", node.answers ? "badge plain" : "badge", node.answers ? "up" : "away");
    badge.dataset.state = node.answers ? "" : "failed";
    const about = make("div", "node", make("h2", "", node.name), badge);
    const panel = make("section", "panel", about, make("p", "hint", nodeWords(node)));
    const none = node.answers ? "No modules are installed here." : "It does not answer, and is started anew if it has ended.";
    if (node.modules.length === 0) panel.append(make("p", "none", none));
    else panel.append(make("ul", "links", ...node.modules.map((module) => this.#module(node, module))));
    return panel;
  }

  #module(node: ServiceNode, module: Module): HTMLElement {
    const state = make("span", module.state === "running" ? "badge plain" : "badge", module.state);
    state.dataset.state = module.state === "restarting" ? "slate" : module.state === "running" ? "" : "failed";
    const title = make("p", "called", make("strong", "", module.name), state);
    const facts = make("small", "", `${module.user} · ${module.filter ?? "no packets"} · ${expiryWords(module.expires_s)}`);
    const words = make("div", "", title, facts);
    if (Object.keys(module.figures).length > 0) words.append(this.#figures(node, module));
    const log = button("button small", "Log", () => void this.#showLog(node.name, module.user));
    log.setAttribute("aria-label", `Log of ${module.user} on ${node.name}`);
    const remove = button("button small", "Remove", () => void this.#remove(node.name, module));
    remove.setAttribute("aria-label", `Remove ${module.name} of ${module.user} from ${node.name}`);
    return make("li", "", words, make("div", "buttons", log, remove));
  }

  #figures(node: ServiceNode, module: Module): HTMLElement {
    const entries = Object.entries(module.figures);
    const list = make("dl", "figures", ...entries.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
    const place = `${node.name} ${module.user} ${module.name}`;
    const folded = make("details", "", make("summary", "", packetWords(module)), list);
    folded.open = this.#open.has(place);
    folded.ontoggle = () => (folded.open ? this.#open.add(place) : this.#open.delete(place));
    return folded;
  }

  #user(user: ServiceUser): HTMLElement {
    const title = make("p", "called", make("strong", "", user.name));
    if (user.in_file) title.append(make("span", "badge plain", "in the file"));
    const words = make("div", "", title, make("small", "", userWords(user)));
    if (user.in_file) return make("li", "", words);
    const remove = button("button small", "Remove", () => void this.#forget(user.name));
    remove.setAttribute("aria-label", `Remove the user ${user.name}`);
    return make("li", "", words, make("div", "buttons", remove));
  }

  async #remove(node: string, module: Module): Promise<void> {
    const text = `Packets pass ${node} without it at once. ${module.user} can install it again.`;
    if (!(await confirmed(`Remove ${module.name}?`, text, "Remove"))) return;
    await this.#changed(ask("DELETE", modulePath(node, module)), `${module.name} is removed`);
  }

  async #forget(name: string): Promise<void> {
    const text = "Nothing more can be installed in this name. Modules that are there stay until their time is over.";
    if (!(await confirmed(`Remove ${name}?`, text, "Remove"))) return;
    await this.#changed(ask("DELETE", `/api/services/users/${encodeURIComponent(name)}`), `${name} is removed`);
  }

  async #changed(change: Promise<unknown>, words: string): Promise<void> {
    try {
      await change;
      toast(words);
    } catch (error) {
      this.#failed(error);
    }
    if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
    this.#drawn = "";
    await this.refresh();
  }

  async #showLog(node: string, user: string): Promise<void> {
    try {
      const path = `/api/services/nodes/${encodeURIComponent(node)}/log/${encodeURIComponent(user)}?lines=200`;
      const { lines } = await ask<{ lines: string[] }>("GET", path);
      say(byId("log-title"), `${user} on ${node}`);
      say(byId("log-lines"), lines.join("\n") || "Nothing has been printed yet.");
      this.#log.showModal();
      byId("log-lines").scrollTop = byId("log-lines").scrollHeight;
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error: unknown): void {
    if (error instanceof Refused && error.status === 401) location.replace(loginPath(new URL(location.href)));
    sayOrHide(byId("trouble"), wordsOf(error));
  }
}

function show(me: Me): void {
  if (!me.signed_in) return location.replace(loginPath(new URL(location.href)));
  if (me.may.operate) void new ServicesPage().run();
  else sayOrHide(byId("trouble"), "Services are for operators.");
}

whenParsed(() => {
  void showAccount(who);
  who.then(show).catch((error: unknown) => sayOrHide(byId("trouble"), wordsOf(error)));
});
