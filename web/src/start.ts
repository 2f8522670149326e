/**
 * The entry of the watch page's modules: they run once the channel's picture is there, for nothing is to
 * compete with it, or once there is something to say about it.
 */

import type {} from "./opening";

const LATEST_MS = 800;

const { session, shown } = window.anabranchOpening;
const refused = new Promise<void>((resolve) => {
  if (!session) return resolve();
  void session.outcome.then((outcome) => outcome.ok || resolve());
});
const late = new Promise((resolve) => setTimeout(resolve, LATEST_MS));
void Promise.race([shown, refused, late]).then(() => import("./watch"));
