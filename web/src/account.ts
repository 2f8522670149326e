/** The corner of every page that says who is signed in. */

import { button, drawing, make } from "./dom";
import { fetchMe, loginPath, nameOf, signOut } from "./me";
import type { Me } from "./me";

const CHEVRON = "M6 9l6 6 6-6";

function link(text: string, href: string): HTMLAnchorElement {
  const made = make("a", "", text);
  made.href = href;
  if (new URL(href, location.href).pathname === location.pathname) made.setAttribute("aria-current", "page");
  return made;
}

function menu(me: Me): HTMLElement {
  const name = nameOf(me);
  // Drawn by the style: a letter is no part of what the button is called.
  const letter = make("span", "letter");
  letter.dataset.letter = name.slice(0, 1).toUpperCase();
  const opener = make("button", "who", letter, make("span", "who-name", name), drawing("0 0 24 24", CHEVRON));
  opener.type = "button";
  opener.setAttribute("aria-expanded", "false");
  opener.setAttribute("aria-controls", "account-panel");
  opener.setAttribute("aria-label", `Account: ${name}`);
  const panel = make("div", "account-panel");
  panel.id = "account-panel";
  panel.hidden = true;
  const facts = make("p", "as", make("strong", "", name), ` ${me.role ?? ""}`);
  const list = make("ul", "");
  const entries: HTMLElement[] = [];
  if (me.may.add_channels || me.may.operate) entries.push(link("Studio", "/studio"));
  entries.push(link("Channels", "/"));
  if (me.name !== null) entries.push(link("Account", "/account"));
  if (me.may.accounts) entries.push(link("People", "/people"));
  if (me.may.operate) entries.push(link("Services", "/services"));
  entries.push(
    button("", me.by === "session" ? "Sign out" : "Forget the token", () => {
      void signOut().finally(() => location.reload());
    }),
  );
  list.append(...entries.map((entry) => make("li", "", entry)));
  panel.append(facts, list);

  const place = make("div", "account-menu", opener, panel);
  const open = (shown: boolean): void => {
    panel.hidden = !shown;
    opener.setAttribute("aria-expanded", String(shown));
  };
  opener.onclick = () => open(Boolean(panel.hidden));
  place.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || panel.hidden) return;
    open(false);
    opener.focus();
    event.stopPropagation();
  });
  place.addEventListener("focusout", (event) => {
    if (event.relatedTarget instanceof Node && !place.contains(event.relatedTarget)) open(false);
  });
  document.addEventListener("pointerdown", (event) => {
    if (event.target instanceof Node && !place.contains(event.target)) open(false);
  });
  return place;
}

/** Shows it in the page's header; nothing where there is nobody to be. Returns who it is. */
export async function showAccount(asked: Promise<Me> = fetchMe()): Promise<Me | null> {
  const slot = document.getElementById("account");
  let me: Me;
  try {
    me = await asked;
  } catch {
    return null; // the page works without
  }
  if (!slot) return me;
  if (me.signed_in) slot.replaceChildren(menu(me));
  else if (me.accounts && location.pathname !== "/login") {
    const made = link("Sign in", loginPath(new URL(location.href)));
    made.className = "quiet";
    slot.replaceChildren(made);
  } else slot.replaceChildren();
  return me;
}
