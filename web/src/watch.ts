/** The watch page. opening.ts comes first: it sends the WHEP request while the rest is set up. */

import { opening, startedAt, target } from "./opening";
import { Refused, fetchChannel } from "./channels";
import { Controls, byId } from "./controls";
import { DelayReader } from "./delay";
import { stateLabel, viewersLabel } from "./format";
import { showNotice } from "./notice";
import { Player } from "./player";
import { expose } from "./probe";
import { showStatistics } from "./statistics";
import { DirectorClock } from "./time";

const INFO_MS = 5000;

function run(): void {
  const videos = [byId<HTMLVideoElement>("video-a"), byId<HTMLVideoElement>("video-b")] as const;
  const player = new Player(videos, target, opening);
  const clock = new DirectorClock();
  const delays = new DelayReader(player, clock);
  player.marks = { script: startedAt };
  expose(player, target, delays, clock);

  byId("title").textContent = target.channel;
  document.title = `${target.channel || "No channel"} · Anabranch`;
  if (!opening) return showNotice({ phase: "ended", detail: null }, target);
  const controls = new Controls(player);

  // Polling, not server-sent events: an event stream per player would use up the few connections that
  // browsers allow to a server, and a page with many embedded players could then not connect.
  const inform = async () => {
    if (document.hidden) return;
    try {
      const channel = await fetchChannel(target.channel);
      byId("title").textContent = channel.title || channel.name;
      document.title = `${channel.title || channel.name} · Anabranch`;
      const state = byId("state");
      state.hidden = false;
      state.dataset.state = channel.state;
      state.textContent = stateLabel(channel.state);
      state.title = channel.detail ?? "";
      byId("viewers").textContent = viewersLabel(channel.viewers);
      controls.offer(channel);
      if (player.phase === "ended") player.reopen();
    } catch (error) {
      if (error instanceof Refused && error.status === 404) byId("state").hidden = true;
    }
  };

  player.onphase = () => {
    showNotice(player, target);
    controls.refresh();
  };
  player.screen.onchange = () => controls.refresh();
  // What the page says about the channel waits for its picture, or for the lack of one.
  let informed = false;
  const informOnce = () => {
    if (!informed) void inform();
    informed = true;
  };
  player.onshow = () => {
    informOnce();
    delays.forget();
    controls.refresh();
    controls.address();
    showNotice(player, target);
  };
  player.onpoll = () => {
    if (player.phase === "playing") {
      // Not before the first picture: nothing may compete with it.
      void clock.measure();
      if (!byId("statistics").hidden && !target.embed) delays.poll();
    }
    showStatistics(player, delays);
  };
  player.start();
  showNotice(player, target);
  void opening.outcome.then((outcome) => outcome.ok || informOnce());
  setTimeout(informOnce, 1500);
  setInterval(() => void inform(), INFO_MS);
}

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", run);
else run();
