/** The page /account: one's password, API tokens and sessions. */

import { showAccount } from "./account";
import { Refused, ask, wordsOf } from "./api";
import { confirmed } from "./confirm";
import { byId, say, sayOrHide, whenParsed } from "./dom";
import { fetchMe, loginPath, signOutEverywhere, troubleOf } from "./me";
import type { Me } from "./me";
import { dayLabel } from "./moments";
import { refusedField, revealable } from "./passwords";
import { acceptAll, refuse } from "./refusal";
import { roleLabel } from "./roles";
import { toast } from "./toast";
import { Tokens, offerTokens } from "./tokens";

const who = fetchMe();
(who as Promise<unknown>).catch(() => undefined);

const toLogin = (): void => location.replace(loginPath(new URL(location.href)));

/** Whoever is signed out meanwhile signs in again. */
function failed(error: unknown): void {
  if (error instanceof Refused && error.status === 401) toLogin();
}

function passwordForm(): void {
  const form = byId<HTMLFormElement>("password-form");
  const [old, chosen] = [byId<HTMLInputElement>("old"), byId<HTMLInputElement>("new")];
  const reveals = [revealable("old"), revealable("new")];
  const submit = form.querySelector<HTMLButtonElement>("[type=submit]")!;

  const change = async () => {
    acceptAll("old", "new");
    sayOrHide(byId("password-trouble"), null);
    submit.disabled = true;
    try {
      await ask("PUT", "/api/me/password", { body: { old: old.value, new: chosen.value } });
      form.reset();
      for (const show of reveals) show(false);
      say(byId("password-done"), "Your password is changed. Wherever else you were signed in you are signed out.");
    } catch (error) {
      const field = refusedField(error);
      // A wrong password and nobody are answered by the same status.
      if (field === "old" && !(await fetchMe().catch(() => null))?.signed_in) return toLogin();
      if (field) refuse(field, troubleOf(error));
      else sayOrHide(byId("password-trouble"), wordsOf(error));
    } finally {
      submit.disabled = false;
    }
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    say(byId("password-done"), "");
    void change();
  };
}

function sessions(me: Me): void {
  byId("sessions").hidden = me.by !== "session";
  if (me.expires !== null) {
    say(byId("sessions-hint"), `This browser is signed in until ${dayLabel(me.expires)}, or until it was away for a day.`);
  }
  byId("sign-out-all").onclick = async () => {
    const text = "Here, too. API tokens stay good.";
    if (!(await confirmed("Sign out everywhere?", text, "Sign out"))) return;
    try {
      await signOutEverywhere();
      location.replace("/login");
    } catch (error) {
      toast(wordsOf(error));
    }
  };
}

function show(me: Me): void {
  if (!me.signed_in) return toLogin();
  const name = me.name;
  if (name === null) {
    // The site's token is an admin, and nobody's account.
    sayOrHide(byId("trouble"), "The site's token has no account, so no password and no tokens of its own.");
    byId("to-people").hidden = !me.may.accounts;
    return;
  }
  const role = me.role ?? "viewer";
  say(byId("summary"), `${name} · ${roleLabel(role)}`);
  byId<HTMLInputElement>("username").value = name;
  byId("page").hidden = false;
  passwordForm();
  sessions(me);
  const tokens = new Tokens(name, () => ({ name, role }), failed);
  offerTokens(me.may.tokens);
  tokens.offer();
  void tokens.show();
}

whenParsed(() => {
  void showAccount(who);
  who.then(show).catch((error: unknown) => sayOrHide(byId("trouble"), wordsOf(error)));
});
