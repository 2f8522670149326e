/** The page /studio/NAME: one channel, for whoever manages it. */

import { showAccount } from "./account";
import { Refused, ask, wordsOf } from "./api";
import { Booth } from "./booth";
import { channelPath } from "./channels";
import type { Managed } from "./channels";
import { confirmed } from "./confirm";
import { byId, say, sayOrHide, whenParsed } from "./dom";
import { followEvents } from "./events";
import { stateLabel, viewersLabel } from "./format";
import { fieldsOf, stepsOf } from "./hand-over";
import { figuresOf, healthOf } from "./health";
import { fetchMe, loginPath } from "./me";
import { Sharing } from "./sharing";
import { studioChannel, watchPath } from "./target";
import { copy, toast } from "./toast";

const EVERY_MS = 2000;

const name = studioChannel(location.pathname);
const first = ask<Managed>("GET", channelPath(name, "/detail"));
const who = fetchMe();
for (const asked of [first, who]) (asked as Promise<unknown>).catch(() => undefined);

class ChannelPage {
  #channel: Managed;
  #fields = "";
  #booth: Booth | null = null;
  readonly #sharing: Sharing;

  constructor(channel: Managed) {
    this.#channel = channel;
    this.#sharing = new Sharing(name, (what) => this.#change(what, "Saved"));
    byId<HTMLIFrameElement>("seen").src = `${watchPath(name)}?embed=preview`;
    byId<HTMLAnchorElement>("watch").href = watchPath(name);
    byId("copy-watch").onclick = () => void copy(location.origin + watchPath(name), "Address");
    this.#field("now-form", "now", (now) => this.#change({ now }, "Saved"));
    this.#field("title-form", "rename", (title) => this.#change({ title }, "Renamed"));
    this.#field("caption-form", "caption", (text) => this.#caption(text));
    byId("renew").onclick = () => void this.#renew();
    byId("remove").onclick = () => void this.#remove();
    byId<HTMLInputElement>("now").value = channel.now;
    byId<HTMLInputElement>("rename").value = channel.title;
    this.#arrange();
    this.update(channel);
    byId("page").hidden = false;
    if (location.hash === "#camera") byId("camera").focus();
  }

  /** In one column the camera comes right after the preview, for the tabulator as for the eye. */
  #arrange(): void {
    const narrow = matchMedia("(max-width: 860px)");
    const place = () => {
      if (narrow.matches) byId("seen").parentElement!.after(byId("booth"));
      else byId("send").before(byId("booth"));
    };
    narrow.addEventListener("change", place);
    place();
  }

  update(channel: Managed): void {
    this.#channel = channel;
    const title = channel.title || name;
    say(byId("title"), title);
    document.title = `${title} · Studio`;
    const state = byId("state");
    state.dataset.state = channel.state;
    say(state, stateLabel(channel.state));
    say(byId("viewers"), viewersLabel(channel.viewers));
    const { level, text } = healthOf(channel);
    byId("health").dataset.level = level;
    say(byId("health"), text);
    const figures = figuresOf(channel.publisher, Date.now() / 1000);
    for (const cell of document.querySelectorAll<HTMLElement>("#figures [data-is]")) {
      say(cell, figures[cell.dataset.is ?? ""] ?? "–");
    }
    this.#handOver(channel);
    this.#sharing.update(channel);
    byId("booth").hidden = !channel.whip;
    if (channel.whip && !this.#booth) {
      this.#booth = new Booth(() => ({ channel: this.#channel, key: this.#channel.key ?? "" }));
      this.#booth.show();
    }
  }

  /** Only where it has changed: somebody may be selecting in it. */
  #handOver(channel: Managed): void {
    const fields = JSON.stringify([channel.publish, channel.key]);
    if (fields === this.#fields) return;
    this.#fields = fields;
    say(byId("send-hint"), stepsOf(channel.source));
    byId("fields").replaceChildren(...fieldsOf(channel));
    byId("renew").hidden = channel.key === null;
  }

  #field(form: string, input: string, act: (text: string) => Promise<void>): void {
    byId(form).onsubmit = (event) => {
      event.preventDefault();
      void act(byId<HTMLInputElement>(input).value.trim());
    };
  }

  async #change(what: object, done: string): Promise<void> {
    try {
      this.update(await ask<Managed>("PATCH", channelPath(name), { body: what }));
      toast(done);
    } catch (error) {
      this.update(this.#channel); // as it still is
      toast(wordsOf(error));
    }
  }

  async #caption(text: string): Promise<void> {
    try {
      await ask("POST", channelPath(name, "/captions"), { body: { text } });
      byId<HTMLInputElement>("caption").value = "";
    } catch (error) {
      toast(wordsOf(error));
    }
  }

  async #renew(): Promise<void> {
    const text = "The present one no longer works, and whoever publishes with it is cut off.";
    if (await confirmed("Draw a new key?", text, "New key")) await this.#change({ new_key: true }, "New key drawn");
  }

  async #remove(): Promise<void> {
    const { viewers, title } = this.#channel;
    const text = `Its address, its key and its links end${viewers ? `, and so does the picture of ${viewersLabel(viewers)}` : ""}.`;
    if (!(await confirmed(`Remove “${title}”?`, text, "Remove"))) return;
    try {
      await ask("DELETE", channelPath(name));
      location.replace("/studio");
    } catch (error) {
      toast(wordsOf(error));
    }
  }
}

function run(): void {
  let page: ChannelPage | null = null;
  let running = false;

  const refresh = async (asked?: Promise<Managed>) => {
    if (running) return;
    running = true;
    try {
      const channel = await (asked ?? ask<Managed>("GET", channelPath(name, "/detail")));
      if (page) page.update(channel);
      else page = new ChannelPage(channel);
      sayOrHide(byId("gone"), null);
    } catch (error) {
      const status = error instanceof Refused ? error.status : null;
      if (status === 401) location.replace(loginPath(new URL(location.href)));
      // Of what passes by itself nothing is said while the page still shows what was so.
      if (status === 404) byId("page").hidden = true;
      if (status === 404) sayOrHide(byId("gone"), `There is no channel “${name}” that you manage.`);
      else sayOrHide(byId("gone"), wordsOf(error));
    }
    running = false;
  };

  void showAccount(who);
  void refresh(first);
  followEvents(() => void refresh());
  setInterval(() => document.hidden || void refresh(), EVERY_MS);
}

whenParsed(run);
