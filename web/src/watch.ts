/** The watch page. By the time that this runs opening.ts has asked for the channel, and most often shown it. */

import { Refused, fetchChannel } from "./channels";
import type { Channel } from "./channels";
import { showAccount } from "./account";
import { Captions } from "./captions";
import { Controls } from "./controls";
import { keepShare } from "./credentials";
import { byId, sayOrHide, whenParsed } from "./dom";
import { onSweep } from "./swipe";
import { DelayReader } from "./delay";
import { stateLabel, viewersLabel } from "./format";
import { showNotice } from "./notice";
import { Player } from "./player";
import { expose } from "./probe";
import { showStatistics } from "./statistics";
import { DirectorClock } from "./time";
import { Tuner } from "./tuner";

const opening = window.anabranchOpening;
const { target } = opening;
// The script that opened the session has its own copies of the modules that it is built of.
keepShare(target.channel, target.share);

const INFO_MS = 5000;
const AFTER_CHANGE_MS = 300;
/** The list of channels changes seldom, and may be long. */
const LIST_MS = 60_000;

function entitle(title: string): void {
  if (byId("title").textContent !== title) byId("title").textContent = title;
  document.title = `${title || "No channel"} · Anabranch`;
}

function describe(channel: Channel): void {
  entitle(channel.title || channel.name);
  const state = byId("state");
  state.hidden = false;
  state.dataset.state = channel.state;
  state.textContent = stateLabel(channel.state);
  state.title = channel.detail ?? "";
  byId("viewers").textContent = viewersLabel(channel.viewers);
  sayOrHide(byId("on-now"), channel.now);
}

function run(): void {
  document.documentElement.classList.add("ready");
  const videos = [byId<HTMLVideoElement>("video-a"), byId<HTMLVideoElement>("video-b")] as const;
  const player = new Player(videos, opening);
  const clock = new DirectorClock();
  const delays = new DelayReader(player, clock);
  player.marks = { script: opening.startedAt };
  expose(player, delays, clock);

  const notify = () => showNotice(player, target.embed);
  entitle(target.channel);
  const { session } = opening;
  if (!session) return notify();
  const captions = new Captions();
  const tuner = new Tuner(player, target.embed, () => captions.clear());
  const controls = new Controls(player, (key) => {
    if (key === "i") tuner.info();
    else if (key === "c") captions.toggle();
    else return tuner.key(key);
    return true;
  });
  onSweep(byId("stage"), (by) => tuner.step(by));

  // Polling, not server-sent events: an event stream per player would use up the few connections that
  // browsers allow to a server, and a page with many embedded players could then not connect.
  const inform = async () => {
    if (document.hidden) return;
    const { channel: name } = player.wish;
    try {
      const channel = await fetchChannel(name);
      if (name !== player.wish.channel) return;
      describe(channel);
      controls.offer(channel);
      captions.offer(channel.captions);
      tuner.inform(channel);
      if (player.phase === "ended") player.reopen();
    } catch (error) {
      if (error instanceof Refused && error.status === 404) byId("state").hidden = true;
    }
  };

  player.onphase = () => {
    notify();
    controls.refresh();
  };
  player.screen.onchange = () => controls.refresh();
  // What the page says about the channel waits for its picture, or for the lack of one.
  let informedOf: string | null = null;
  const informOnce = () => {
    const first = informedOf === null;
    if (informedOf === player.wish.channel) return;
    informedOf = player.wish.channel;
    // The other channel's picture is on its way, and nothing is to compete with it.
    if (!first) return void setTimeout(() => void inform(), AFTER_CHANGE_MS);
    void inform();
    void tuner.refresh();
    if (!target.embed) void showAccount();
  };
  player.onshow = () => {
    entitle(tuner.titleOf(player.wish.channel));
    informOnce();
    delays.forget();
    controls.refresh();
    captions.follow(player.events);
    tuner.arrived();
    notify();
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
  notify();
  void session.outcome.then((outcome) => outcome.ok || informOnce());
  setTimeout(informOnce, 1500);
  setInterval(() => void inform(), INFO_MS);
  setInterval(() => document.hidden || void tuner.refresh(), LIST_MS);
}

whenParsed(run);
