/** The form that makes an account or changes one. */

import { accountPath } from "./accounts";
import type { Account } from "./accounts";
import { ask, wordsOf } from "./api";
import { byId, make, say, sayOrHide } from "./dom";
import type { Role } from "./me";
import { drawPassword, refusedPart, revealable } from "./passwords";
import { acceptAll, refuse } from "./refusal";
import { ROLES } from "./roles";

export class PersonForm {
  readonly #dialog = byId<HTMLDialogElement>("person-dialog");
  readonly #form = byId<HTMLFormElement>("person-form");
  readonly #name = byId<HTMLInputElement>("name");
  readonly #role = byId<HTMLSelectElement>("role");
  readonly #password = byId<HTMLInputElement>("password");
  readonly #reveal = revealable("password");
  /** Who is changed; null: somebody new. */
  #account: Account | null = null;

  constructor(
    /** Who does it: its own password is changed elsewhere, where the old one is asked for. */
    private readonly self: string | null,
    private readonly done: (name: string, isNew: boolean) => void,
    private readonly failed: (error: unknown) => void,
  ) {
    this.#role.replaceChildren(
      ...ROLES.map(({ id, label }) => {
        const option = make("option", "", label);
        option.value = id;
        return option;
      }),
    );
    this.#role.onchange = () => this.#explain();
    byId("draw-password").onclick = () => {
      acceptAll("password");
      this.#password.value = drawPassword();
      this.#reveal(true);
      this.#password.focus();
    };
    byId("person-cancel").onclick = () => this.#dialog.close();
    this.#dialog.addEventListener("close", () => (this.#password.value = ""));
    this.#form.onsubmit = (event) => {
      event.preventDefault();
      void this.#save();
    };
  }

  /** Opens it for an account, or with null for somebody new. */
  open(account: Account | null): void {
    this.#account = account;
    this.#form.reset();
    this.#reveal(false);
    this.#accept();
    const isSelf = account !== null && account.name === this.self;
    say(byId("person-title"), account ? `Edit ${account.name}` : "Add somebody");
    say(byId("person-submit"), account ? "Save" : "Add");
    byId("name-field").hidden = account !== null;
    this.#name.disabled = account !== null;
    byId("password-field").hidden = isSelf;
    this.#password.disabled = isSelf;
    this.#password.required = account === null;
    say(byId("password-label"), account ? "New password" : "Password");
    say(
      byId("password-hint"),
      account
        ? "Leave it empty to keep the present one. A new one signs them out everywhere."
        : "At least 10 characters; a few words do well. Hand it over: it is not shown again.",
    );
    byId("own-password").hidden = !isSelf;
    this.#role.value = account?.role ?? "viewer";
    this.#explain();
    this.#dialog.showModal();
    (account ? this.#role : this.#name).focus();
  }

  #explain(): void {
    say(byId("role-hint"), ROLES.find(({ id }) => id === this.#role.value)?.hint ?? "");
  }

  #accept(): void {
    acceptAll("name", "role", "password");
    sayOrHide(byId("person-trouble"), null);
  }

  async #save(): Promise<void> {
    this.#accept();
    const submit = byId<HTMLButtonElement>("person-submit");
    const role = this.#role.value as Role;
    const password = this.#password.value;
    const account = this.#account;
    const name = account?.name ?? this.#name.value.trim();
    submit.disabled = true;
    try {
      if (account === null) await ask("POST", "/api/accounts", { body: { name, role, password } });
      else await ask("PATCH", accountPath(name), { body: { role, ...(password ? { password } : {}) } });
      this.#dialog.close();
      this.done(name, account === null);
    } catch (error) {
      const part = refusedPart(error);
      if (part && !byId<HTMLInputElement>(part).disabled) refuse(part, wordsOf(error));
      else {
        this.failed(error);
        sayOrHide(byId("person-trouble"), wordsOf(error));
      }
    } finally {
      submit.disabled = false;
    }
  }
}
