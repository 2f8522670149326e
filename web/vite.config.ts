import { type Plugin, defineConfig } from "vite";

const OPENING = /src.(opening|credentials|target|whep|link|recovery|session|wish)\.ts$/;

// As the pages' sources name them; a page's own style sheet is the last.
const STYLES = ["base", "forms", "publish", "studio", "account", "services"];
const STYLE = /\n\s*<link rel="stylesheet"[^>]*\/assets\/(\w+)-[^>]*>/g;

/** Puts the style sheets of a built page in their order: Vite has those that pages share after the page's own. */
export function inStyleOrder(html: string): string {
  const rank = (name: string) => (STYLES.includes(name) ? STYLES.indexOf(name) : STYLES.length);
  const sheets = [...html.matchAll(STYLE)].map(([tag, name]) => ({ tag, rank: rank(name!) }));
  const tags = sheets.sort((a, b) => a.rank - b.rank).map(({ tag }) => tag);
  return html.replace(STYLE, () => tags.shift()!);
}

const styleOrder: Plugin = { name: "style-order", transformIndexHtml: { order: "post", handler: inStyleOrder } };

export default defineConfig({
  plugins: [styleOrder],
  base: "/",
  // The director serves the pages and /assets, nothing else: no public directory.
  publicDir: false,
  build: {
    outDir: "../src/anabranch/console/static",
    emptyOutDir: true,
    target: "es2022",
    // Every browser that can play over WHEP knows modulepreload; the polyfill would only be in the way.
    modulePreload: { polyfill: false },
    // Files, not data: addresses, so that the browser caches them under their hashed names.
    assetsInlineLimit: 0,
    rolldownOptions: {
      input: ["index", "watch", "publish", "login", "studio", "channel", "account", "people", "monitor", "services"].map((page) => `${page}.html`),
      output: {
        // What asks for the channel comes in one small file, and does not wait for the rest of the page.
        advancedChunks: { groups: [{ name: "opening", test: OPENING }] },
      },
    },
  },
});
