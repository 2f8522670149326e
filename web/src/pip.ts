/** The picture in a window of its own, above those of other programs. */

import type { Screen } from "./screen";

export class Pip {
  constructor(
    private readonly screen: Screen,
    private readonly button: HTMLElement,
  ) {
    button.hidden = !document.pictureInPictureEnabled;
    button.onclick = () => this.toggle();
    for (const video of [screen.front, screen.back]) {
      for (const kind of ["enterpictureinpicture", "leavepictureinpicture"]) {
        video.addEventListener(kind, () => this.refresh());
      }
    }
  }

  /** Brings the button in line, and the window to the element whose turn it is. */
  refresh(): void {
    const shown = document.pictureInPictureElement;
    this.button.setAttribute("aria-pressed", String(shown !== null));
    if (shown === this.screen.back) void this.#enter();
  }

  toggle(): void {
    if (this.button.hidden) return;
    if (document.pictureInPictureElement) void document.exitPictureInPicture().catch(() => undefined);
    else void this.#enter();
  }

  async #enter(): Promise<void> {
    // Refused before the first picture, and by a page that frames us without allowing it.
    await this.screen.front.requestPictureInPicture().catch(() => undefined);
  }
}
