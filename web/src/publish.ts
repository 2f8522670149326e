/** The page /publish: for whoever has a channel's key and nothing else. */

import { showAccount } from "./account";
import { Booth } from "./booth";
import type { Aim } from "./booth";
import { fetchChannels } from "./channels";
import { byId, say, whenParsed } from "./dom";
import { choices, readAddress, tidyKey } from "./sending";
import type { Choice } from "./sending";
import { watchPath } from "./target";

function run(): void {
  const address = readAddress(new URL(location.href));
  const channelPick = byId<HTMLSelectElement>("channel");
  const keyInput = byId<HTMLInputElement>("key");
  let channels: Choice[] = [];
  keyInput.value = address.key;

  const aim = (): Aim => {
    const channel = channels.find(({ name }) => name === channelPick.value);
    const key = tidyKey(keyInput.value);
    if (!channel) return { trouble: "There is no channel to publish to.", focus: channelPick };
    return key ? { channel, key } : { trouble: "The channel's key is missing.", focus: keyInput };
  };
  const tell = () => {
    const name = channelPick.value;
    byId("watch-line").hidden = !name;
    const link = byId<HTMLAnchorElement>("watch");
    link.href = name ? watchPath(name) : "/";
    say(link, name ? location.origin + watchPath(name) : "");
  };
  const booth = new Booth(aim, tell);
  channelPick.onchange = tell;
  keyInput.oninput = () => booth.forgive();
  const show = byId("show-key");
  show.onclick = () => {
    const shown = keyInput.type === "text";
    keyInput.type = shown ? "password" : "text";
    show.setAttribute("aria-pressed", String(!shown));
    show.textContent = shown ? "Show" : "Hide";
  };

  const hint = byId("channel-hint");
  fetchChannels()
    .then((found) => {
      channels = choices(found, address.channel, address.key);
      channelPick.replaceChildren(...channels.map(({ name, title }) => new Option(title || name, name)));
      const unknown = address.channel && channels[0]?.name !== address.channel;
      hint.hidden = channels.length > 0 && !unknown;
      hint.textContent = channels.length
        ? `“${address.channel}” cannot be published to.`
        : "None can be published to yet: add one in the studio.";
    })
    .catch(() => {
      hint.hidden = false;
      hint.textContent = "The list of channels cannot be had at the moment; load this page again.";
    })
    .finally(() => booth.show());
  booth.show();
  void showAccount();
}

whenParsed(run);
