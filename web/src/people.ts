/** The page /people: accounts and everybody's API tokens, for admins. */

import { showAccount } from "./account";
import { MOST_ROWS, accountFacts, accountPath, found, removalWords } from "./accounts";
import type { Account } from "./accounts";
import { Refused, ask, wordsOf } from "./api";
import { confirmed } from "./confirm";
import { button, byId, make, say, sayOrHide, whenParsed } from "./dom";
import { fetchMe, loginPath } from "./me";
import type { Me } from "./me";
import { PersonForm } from "./person-form";
import { roleLabel } from "./roles";
import { toast } from "./toast";
import { Tokens, offerTokens } from "./tokens";

/** With fewer than these, all are seen at once. */
const FILTER_FROM = 8;

const who = fetchMe();
(who as Promise<unknown>).catch(() => undefined);

class PeoplePage {
  readonly #list = byId("people");
  readonly #filter = byId<HTMLInputElement>("filter");
  readonly #owner = byId<HTMLSelectElement>("token-owner");
  readonly #form: PersonForm;
  readonly #tokens: Tokens;
  #accounts: Account[] = [];

  constructor(private readonly me: Me) {
    const failed = (error: unknown) => this.#failed(error);
    this.#form = new PersonForm(me.name, (name, isNew) => void this.#changed(name, isNew), failed);
    this.#tokens = new Tokens(null, () => this.#accounts.find(({ name }) => name === this.#owner.value) ?? null, failed);
    this.#owner.onchange = () => this.#tokens.offer();
    this.#filter.oninput = () => this.#show();
    byId("new").hidden = false;
    byId("new").onclick = () => this.#form.open(null);
    byId("page").hidden = false;
    if (location.hash === "#new") this.#form.open(null);
  }

  async refresh(): Promise<void> {
    try {
      this.#accounts = (await ask<{ accounts: Account[] }>("GET", "/api/accounts")).accounts;
      sayOrHide(byId("trouble"), null);
    } catch (error) {
      this.#failed(error);
      sayOrHide(byId("trouble"), wordsOf(error));
      return;
    }
    this.#show();
    this.#offerOwners();
    await this.#tokens.show();
  }

  #show(): void {
    const all = this.#accounts;
    const now = Date.now() / 1000;
    const rows = found(all, this.#filter.value);
    this.#list.replaceChildren(...rows.map((account) => this.#row(account, now)));
    this.#list.hidden = rows.length === 0;
    byId("filter-field").hidden = all.length < FILTER_FROM;
    const people = all.length === 1 ? "1 account" : `${all.length} accounts`;
    const admins = all.filter(({ role }) => role === "admin").length;
    say(byId("summary"), all.length ? `${people} · ${admins === 1 ? "1 admin" : `${admins} admins`}` : "");
    byId("empty").hidden = all.length > 0;
    byId("list-panel").hidden = all.length === 0;
    const left = rows.length === 0 ? "Nobody is called that." : rows.length === MOST_ROWS ? `The first ${MOST_ROWS}; the filter finds the others.` : "";
    sayOrHide(byId("filter-hint"), all.length ? left : null);
  }

  #row(account: Account, now: number): HTMLElement {
    const { name, role } = account;
    const title = make("p", "called", make("strong", "", name), make("span", "badge plain", roleLabel(role)));
    if (name === this.me.name) title.append(make("span", "you", "you"));
    const edit = button("button small", "Edit", () => this.#form.open(account));
    edit.setAttribute("aria-label", `Edit ${name}`);
    edit.dataset.edits = name;
    const remove = button("button small", "Remove", () => void this.#remove(account));
    remove.setAttribute("aria-label", `Remove ${name}`);
    const words = make("div", "", title, make("small", "", accountFacts(account, now)));
    return make("li", "", words, make("div", "buttons", edit, remove));
  }

  #offerOwners(): void {
    const chosen = this.#owner.value || this.me.name;
    this.#owner.replaceChildren(
      ...this.#accounts.map(({ name }) => {
        const option = make("option", "", name);
        option.value = name;
        option.selected = name === chosen;
        return option;
      }),
    );
    offerTokens(this.#accounts.length > 0);
    byId("token-panel").hidden = this.#accounts.length === 0;
    this.#tokens.offer();
  }

  async #changed(name: string, isNew: boolean): Promise<void> {
    // Whoever took its own role away has no business here any more.
    if (name === this.me.name && !(await fetchMe().catch(() => this.me)).may.accounts) {
      return location.replace("/account");
    }
    toast(isNew ? `${name} is added` : "Saved");
    if (isNew) this.#filter.value = "";
    await this.refresh();
    // The row was made anew; where it is not shown there is at least the page.
    const edit = [...this.#list.querySelectorAll<HTMLElement>("[data-edits]")].find((each) => each.dataset.edits === name);
    (edit ?? byId("new")).focus();
  }

  async #remove(account: Account): Promise<void> {
    const isSelf = account.name === this.me.name;
    if (!(await confirmed(`Remove ${account.name}?`, removalWords(account, isSelf), "Remove"))) return;
    try {
      await ask("DELETE", accountPath(account.name));
    } catch (error) {
      this.#failed(error);
      sayOrHide(byId("trouble"), wordsOf(error));
      byId("trouble").scrollIntoView({ block: "nearest" });
      return;
    }
    if (isSelf) return location.replace("/login");
    toast(`${account.name} is removed`);
    await this.refresh();
    byId("new").focus();
  }

  #failed(error: unknown): void {
    if (error instanceof Refused && error.status === 401) location.replace(loginPath(new URL(location.href)));
  }
}

function show(me: Me): void {
  if (!me.signed_in) return location.replace(loginPath(new URL(location.href)));
  if (me.may.accounts) void new PeoplePage(me).refresh();
  else sayOrHide(byId("trouble"), "People are for admins. What is your own is on the page Account.");
}

whenParsed(() => {
  void showAccount(who);
  who.then(show).catch((error: unknown) => sayOrHide(byId("trouble"), wordsOf(error)));
});
