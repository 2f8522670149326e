/** The form that makes a channel. */

import { ask, wordsOf } from "./api";
import type { Visibility } from "./channels";
import { byId, make, sayOrHide } from "./dom";
import { WAYS, nameFrom } from "./naming";
import type { Way } from "./naming";
import { studioPath } from "./target";

export class NewChannel {
  readonly #dialog = byId<HTMLDialogElement>("new-dialog");
  readonly #form = byId<HTMLFormElement>("new-form");
  readonly #title = byId<HTMLInputElement>("title");
  readonly #name = byId<HTMLInputElement>("name");
  readonly #source = byId<HTMLInputElement>("source");
  /** The name was written by hand: it no longer follows the title. */
  #named = false;

  constructor(
    /** Names that cannot be had, as far as is known. */
    private readonly taken: () => ReadonlySet<string>,
    /** Whether files and URLs may be named. */
    mayPull: boolean,
  ) {
    byId("ways").replaceChildren(
      ...WAYS.filter(({ source }) => mayPull || source !== null).map(({ id, label, hint }, index) => {
        const radio = make("input", "");
        radio.type = "radio";
        radio.name = "way";
        radio.value = id;
        radio.required = true;
        radio.checked = index === 0;
        return make("label", "way", radio, make("span", "", make("strong", "", label), make("small", "", hint)));
      }),
    );
    byId("ways").onchange = () => this.#refresh();
    this.#title.oninput = () => {
      if (!this.#named) this.#name.value = nameFrom(this.#title.value, this.taken());
    };
    this.#name.oninput = () => (this.#named = this.#name.value !== "");
    byId("cancel").onclick = () => this.#dialog.close();
    this.#form.onsubmit = (event) => {
      event.preventDefault();
      void this.#create();
    };
    this.#refresh();
  }

  open(): void {
    sayOrHide(byId("new-trouble"), null);
    this.#dialog.showModal();
    this.#title.focus();
  }

  get #way(): Way {
    const chosen = this.#form.querySelector<HTMLInputElement>("input[name=way]:checked")?.value;
    return WAYS.find(({ id }) => id === chosen) ?? WAYS[0]!;
  }

  #refresh(): void {
    const pulls = this.#way.source === null;
    byId("source-field").hidden = !pulls;
    this.#source.required = pulls;
  }

  async #create(): Promise<void> {
    const { id, source } = this.#way;
    const name = this.#name.value;
    const submit = this.#form.querySelector<HTMLButtonElement>("[type=submit]")!;
    submit.disabled = true;
    sayOrHide(byId("new-trouble"), null);
    try {
      await ask("POST", "/api/channels", {
        body: {
          name,
          title: this.#title.value.trim() || name,
          source: source ?? this.#source.value.trim(),
          visibility: byId<HTMLSelectElement>("visibility").value as Visibility,
        },
      });
      location.assign(studioPath(name) + (id === "camera" ? "#camera" : ""));
    } catch (error) {
      sayOrHide(byId("new-trouble"), wordsOf(error));
      submit.disabled = false;
    }
  }
}
