import { defineConfig } from "vite";

const OPENING = /src.(opening|credentials|target|whep|link|recovery|session|wish)\.ts$/;

export default defineConfig({
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
      input: ["index", "watch", "publish", "login", "studio", "channel", "account", "people"].map((page) => `${page}.html`),
      output: {
        // What asks for the channel comes in one small file, and does not wait for the rest of the page.
        advancedChunks: { groups: [{ name: "opening", test: OPENING }] },
      },
    },
  },
});
