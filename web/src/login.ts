/** The page /login. */

import { showAccount } from "./account";
import { byId, sayOrHide, whenParsed } from "./dom";
import { enterToken, placeAfter, signIn, troubleOf } from "./me";
import { revealable } from "./passwords";

function run(): void {
  const trouble = byId("trouble");
  const password = byId<HTMLInputElement>("password");
  const go = byId<HTMLButtonElement>("go");
  const leave = () => location.replace(placeAfter(new URL(location.href)));

  const attempt = async (form: HTMLFormElement, what: () => Promise<boolean>) => {
    const buttons = form.querySelectorAll("button");
    for (const each of buttons) each.disabled = true;
    // Emptied first: the same words a second time are to be announced again.
    sayOrHide(trouble, null);
    try {
      if (await what()) return leave();
      sayOrHide(trouble, "The site does not know this token.");
    } catch (error) {
      sayOrHide(trouble, troubleOf(error));
    }
    for (const each of buttons) each.disabled = false;
    form.querySelector<HTMLInputElement>("input[type=password]")?.select();
  };

  byId("form").onsubmit = (event) => {
    event.preventDefault();
    const name = byId<HTMLInputElement>("name").value.trim();
    void attempt(byId("form"), async () => (await signIn(name, password.value)).signed_in);
  };
  byId("token-form").onsubmit = (event) => {
    event.preventDefault();
    const text = byId<HTMLInputElement>("token").value.trim();
    void attempt(byId("token-form"), async () => (await enterToken(text)) !== null);
  };
  revealable("password");
  void showAccount().then((me) => {
    // Without accounts the token is all that there is.
    if (me && !me.accounts && !me.signed_in) {
      byId("form").hidden = true;
      byId<HTMLDetailsElement>("other").open = true;
    }
  });
  go.disabled = false;
}

whenParsed(run);
