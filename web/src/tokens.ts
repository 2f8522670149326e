/** API tokens: one's own, or everybody's. */

import { ask, wordsOf } from "./api";
import { confirmed } from "./confirm";
import { button, byId, make, say, sayOrHide } from "./dom";
import type { Role } from "./me";
import { ago, remaining } from "./moments";
import { acceptAll, refuse } from "./refusal";
import { roleLabel, rolesUpTo } from "./roles";
import { copy, toast } from "./toast";

export interface Token {
  id: string;
  name: string;
  role: Role;
  /** The name of the account whose it is. */
  account: string;
  created: number;
  /** Seconds since the epoch; null: never. */
  expires: number | null;
  used: number | null;
}

export interface Owner {
  name: string;
  role: Role;
}

/** What there is to say of a token. Pure. */
export function tokenFacts({ expires, used }: Token, now: number): string {
  const held = expires === null ? "until revoked" : remaining(expires, now);
  return `${held} · ${used === null ? "not used yet" : `used ${ago(used, now)}`}`;
}

export class Tokens {
  readonly #list = byId("tokens");
  readonly #form = byId<HTMLFormElement>("token-form");
  readonly #name = byId<HTMLInputElement>("token-name");
  readonly #role = byId<HTMLSelectElement>("token-role");
  readonly #fresh = byId("token-new");
  #freshId: string | null = null;

  constructor(
    /** Whose they are; null: everybody's, each with its owner's name. */
    private readonly whose: string | null,
    /** Of whom a new one would be. */
    private readonly owner: () => Owner | null,
    private readonly failed: (error: unknown) => void,
  ) {
    this.#form.onsubmit = (event) => {
      event.preventDefault();
      void this.#add();
    };
  }

  /** Offers the roles that the owner's token may have. */
  offer(): void {
    const role = this.owner()?.role ?? "viewer";
    const roles = rolesUpTo(role);
    if (roles.length === this.#role.options.length) return;
    this.#role.replaceChildren(
      ...roles.map((each) => {
        const option = make("option", "", roleLabel(each));
        option.value = each;
        return option;
      }),
    );
  }

  async show(): Promise<void> {
    const query = this.whose === null ? "" : `?account=${encodeURIComponent(this.whose)}`;
    try {
      const { tokens } = await ask<{ tokens: Token[] }>("GET", `/api/tokens${query}`);
      const now = Date.now() / 1000;
      this.#list.replaceChildren(...tokens.map((token) => this.#entry(token, now)));
      this.#list.hidden = tokens.length === 0;
      byId("no-tokens").hidden = tokens.length > 0;
    } catch (error) {
      this.failed(error);
      toast(wordsOf(error));
    }
  }

  #entry(token: Token, now: number): HTMLElement {
    const back = button("button small", "Revoke", () => void this.#revoke(token));
    const of = this.whose === null ? ` of ${token.account}` : "";
    back.setAttribute("aria-label", `Revoke the token “${token.name}”${of}`);
    const title = make("p", "called", make("strong", "", token.name), make("span", "badge plain", roleLabel(token.role)));
    const owned = this.whose === null ? `${token.account} · ` : "";
    return make("li", "", make("div", "", title, make("small", "", owned + tokenFacts(token, now))), back);
  }

  async #add(): Promise<void> {
    acceptAll("token-name");
    sayOrHide(byId("token-trouble"), null);
    const name = this.#name.value.trim();
    const time = byId<HTMLSelectElement>("token-time").value;
    const owner = this.owner();
    const submit = this.#form.querySelector<HTMLButtonElement>("[type=submit]")!;
    submit.disabled = true;
    try {
      const made = await ask<Token & { secret: string }>("POST", "/api/tokens", {
        body: {
          name,
          role: this.#role.value,
          expires_in_s: time ? Number(time) : null,
          ...(this.whose === null && owner ? { account: owner.name } : {}),
        },
      });
      this.#name.value = "";
      await this.show();
      this.#tell(made);
    } catch (error) {
      if (isAboutName(error)) refuse("token-name", wordsOf(error));
      else {
        this.failed(error);
        sayOrHide(byId("token-trouble"), wordsOf(error));
      }
    }
    submit.disabled = false;
  }

  /** The secret, which nobody is told again. */
  #tell({ id, name, secret }: Token & { secret: string }): void {
    this.#freshId = id;
    const take = button("button small", "Copy", () => void copy(secret, "Token"));
    take.setAttribute("aria-label", `Copy the token “${name}”`);
    const words = make("p", "hint", make("strong", "", name), " is shown this once: copy it now.");
    this.#fresh.replaceChildren(words, make("code", "value", secret), make("div", "actions", take));
    take.focus();
  }

  async #revoke(token: Token): Promise<void> {
    const text = "Programs that use it are refused from then on.";
    if (!(await confirmed(`Revoke the token “${token.name}”?`, text, "Revoke"))) return;
    try {
      await ask("DELETE", `/api/tokens/${encodeURIComponent(token.id)}`);
      if (token.id === this.#freshId) this.#fresh.replaceChildren();
      toast("Token revoked");
    } catch (error) {
      this.failed(error);
      toast(wordsOf(error));
    }
    await this.show();
    // What had the focus is no more.
    byId("tokens-title").focus();
  }
}

function isAboutName(error: unknown): boolean {
  return /token's name|^name:/.test(error instanceof Error ? error.message : "");
}

/** Shows the form that makes one, or says why there is none. */
export function offerTokens(may: boolean): void {
  byId("token-form").hidden = !may;
  byId("token-none").hidden = may;
  if (!may) say(byId("token-none"), "A token makes no tokens: sign in with your password to make one.");
}
