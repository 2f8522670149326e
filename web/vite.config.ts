import { type Plugin, type Rolldown, build, defineConfig } from "vite";

const INLINE = /<!-- inline: (\S+) -->/g;

const TARGET = "es2022";

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

/** Builds a script by itself, with all that it imports, as one that needs no module to run. */
export async function standalone(source: string): Promise<string> {
  const entry = decodeURIComponent(new URL(source, import.meta.url).pathname);
  const [built] = (await build({
    configFile: false,
    logLevel: "warn",
    build: { write: false, target: TARGET, lib: { entry, formats: ["iife"], name: "_" } },
  })) as Rolldown.RolldownOutput[];
  const { code } = built!.output[0];
  if (/<\/script|<!--/i.test(code)) throw new Error(`${source} cannot stand in a page`);
  return code.trim();
}

/** Puts scripts where a page names them; its policy has their hashes (console/pages.py). */
const inline: Plugin = {
  name: "inline",
  transformIndexHtml: {
    order: "post",
    async handler(html) {
      for (const [place, source] of html.matchAll(INLINE)) {
        const code = await standalone(source!);
        html = html.replace(place, () => `<script>${code}</script>`);
      }
      return html;
    },
  },
};

export default defineConfig({
  plugins: [styleOrder, inline],
  base: "/",
  // The director serves the pages and /assets, nothing else: no public directory.
  publicDir: false,
  build: {
    outDir: "../src/anabranch/console/static",
    emptyOutDir: true,
    target: TARGET,
    // Every browser that can play over WHEP knows modulepreload; the polyfill would only be in the way.
    modulePreload: { polyfill: false },
    // Files, not data: addresses, so that the browser caches them under their hashed names.
    assetsInlineLimit: 0,
    rolldownOptions: {
      input: ["index", "watch", "publish", "login", "studio", "channel", "account", "people", "monitor", "services"].map((page) => `${page}.html`),
    },
  },
});
