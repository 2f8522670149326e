/** The page /login. */

import { showAccount } from "./account";
import { byId, sayOrHide, whenParsed } from "./dom";
import { type Me, enterToken, placeAfter, signIn, troubleOf } from "./me";
import { revealable } from "./passwords";

function run(): void {
  const trouble = byId("trouble");
  const password = byId<HTMLInputElement>("password");
  const go = byId<HTMLButtonElement>("go");
  const leave = (me: Me) => location.replace(placeAfter(new URL(location.href), me.role));

  const attempt = async (form: HTMLFormElement, what: () => Promise<Me | null>) => {
    const buttons = form.querySelectorAll("button");
    for (const each of buttons) each.disabled = true;
    // Emptied first: the same words a second time are to be announced again.
    sayOrHide(trouble, null);
    try {
      const me = await what();
      if (me?.signed_in) return leave(me);
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
    void attempt(byId("form"), () => signIn(name, password.value));
  };
  byId("token-form").onsubmit = (event) => {
    event.preventDefault();
    const text = byId<HTMLInputElement>("token").value.trim();
    void attempt(byId("token-form"), () => enterToken(text));
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
