/** Small helpers for pages built by hand. What others wrote is only ever set as text. */

type Child = Node | string;

export function byId<T extends HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element as T;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

export function button(className: string, text: string, act: () => void): HTMLButtonElement {
  const made = make("button", className, text);
  made.type = "button";
  made.onclick = act;
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** A drawing of strokes; it says nothing to a screen reader. */
export function drawing(viewBox: string, ...strokes: string[]): SVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", viewBox);
  svg.setAttribute("aria-hidden", "true");
  for (const d of strokes) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

/** Sets a text where it has changed, so that a selection survives and nothing is announced twice. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** As {@link say}; an element without words is not there. */
export function sayOrHide(element: HTMLElement, text: string | null | undefined): void {
  say(element, text ?? "");
  element.hidden = !text;
}

/** Runs once the page's elements are there: scripts are async. */
export function whenParsed(run: () => void): void {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", run);
  else run();
}
