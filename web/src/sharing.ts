/** Who may watch a channel, and the links that let others in. */

import { ask, wordsOf } from "./api";
import { channelPath } from "./channels";
import type { Managed, NewShare, Share, Visibility } from "./channels";
import { confirmed } from "./confirm";
import { button, byId, make } from "./dom";
import { remaining } from "./moments";
import { copy, toast } from "./toast";

const KINDS: readonly { id: Visibility; label: string; hint: string }[] = [
  { id: "public", label: "Public", hint: "Everybody; it is in the list" },
  { id: "unlisted", label: "Unlisted", hint: "Everybody who knows the address" },
  { id: "private", label: "Private", hint: "Whoever was let in, and whoever has a link" },
];

export class Sharing {
  readonly #choices = byId("visibility");
  readonly #links = byId("links");
  readonly #guests = byId("guests");
  #shown: Visibility | null = null;

  constructor(
    private readonly name: string,
    private readonly change: (what: { visibility: Visibility }) => Promise<void>,
  ) {
    for (const { id, label, hint } of KINDS) {
      const radio = make("input", "");
      radio.type = "radio";
      radio.name = "visibility";
      radio.value = id;
      radio.onchange = () => void this.change({ visibility: id });
      this.#choices.append(
        make("label", "way", radio, make("span", "", make("strong", "", label), make("small", "", hint))),
      );
    }
    byId("guest-form").onsubmit = (event) => {
      event.preventDefault();
      void this.#letIn();
    };
    byId("link-form").onsubmit = (event) => {
      event.preventDefault();
      void this.#add();
    };
  }

  update({ visibility }: Managed): void {
    for (const radio of this.#choices.querySelectorAll<HTMLInputElement>("input")) {
      radio.checked = radio.value === visibility;
    }
    // To a public channel nobody needs a link.
    byId("sharing").hidden = visibility === "public";
    byId("letting-in").hidden = visibility !== "private";
    if (this.#shown !== visibility) {
      if (visibility !== "public") void this.#list();
      if (visibility === "private") void this.#listGuests();
    }
    this.#shown = visibility;
  }

  async #listGuests(): Promise<void> {
    try {
      const { accounts } = await ask<{ accounts: string[] }>("GET", channelPath(this.name, "/viewers"));
      this.#guests.replaceChildren(
        ...accounts.map((account) => {
          const out = button("button small", "Remove", () => void this.#guest("DELETE", account));
          out.setAttribute("aria-label", `Remove ${account}`);
          return make("li", "", make("strong", "", account), out);
        }),
      );
      this.#guests.hidden = accounts.length === 0;
    } catch (error) {
      toast(wordsOf(error));
    }
  }

  async #letIn(): Promise<void> {
    const input = byId<HTMLInputElement>("guest");
    if (await this.#guest("PUT", input.value.trim())) input.value = "";
  }

  async #guest(method: "PUT" | "DELETE", account: string): Promise<boolean> {
    try {
      await ask(method, channelPath(this.name, `/viewers/${encodeURIComponent(account)}`));
    } catch (error) {
      toast(wordsOf(error));
      return false;
    }
    await this.#listGuests();
    return true;
  }

  async #list(): Promise<void> {
    try {
      const { shares } = await ask<{ shares: Share[] }>("GET", channelPath(this.name, "/shares"));
      const now = Date.now() / 1000;
      this.#links.replaceChildren(...shares.map((share) => this.#entry(share, now)));
      this.#links.hidden = shares.length === 0;
    } catch (error) {
      toast(wordsOf(error));
    }
  }

  #entry(share: Share, now: number): HTMLElement {
    const title = share.name || "Without a name";
    const facts = `${remaining(share.expires, now)}${share.used === null ? " · not used yet" : ""}`;
    const back = button("button small", "Take back", () => void this.#remove(share, title));
    back.setAttribute("aria-label", `Take back the link “${title}”`);
    return make("li", "", make("span", "", make("strong", "", title), make("small", "", facts)), back);
  }

  async #add(): Promise<void> {
    const time = byId<HTMLSelectElement>("link-time").value;
    const name = byId<HTMLInputElement>("link-name");
    try {
      const made = await ask<NewShare>("POST", channelPath(this.name, "/shares"), {
        body: { name: name.value.trim(), expires_in_s: time ? Number(time) : null },
      });
      name.value = "";
      // As this page is reached, so is the link: the server may know itself by another name.
      const { pathname, hash } = new URL(made.url, location.href);
      const url = location.origin + pathname + hash;
      const value = make("code", "value", url);
      const take = button("button small", "Copy", () => void copy(url, "Link"));
      byId("link-new").replaceChildren(
        make("p", "hint", "The link is shown this once: copy it now."),
        make("div", "handed", value, make("div", "actions", take)),
      );
      await this.#list();
      take.focus();
    } catch (error) {
      toast(wordsOf(error));
    }
  }

  async #remove(share: Share, title: string): Promise<void> {
    const text = "Whoever watches by it loses the picture.";
    if (!(await confirmed(`Take back the link “${title}”?`, text, "Take back"))) return;
    try {
      await ask("DELETE", channelPath(this.name, `/shares/${encodeURIComponent(share.id)}`));
      byId("link-new").replaceChildren();
      toast("Link taken back");
    } catch (error) {
      toast(wordsOf(error));
    }
    await this.#list();
  }
}
