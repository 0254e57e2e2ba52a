#!/usr/bin/env node
// Two dozen kills: the short forms of `hundred-kills.mjs` and `channel-kills.mjs`, with a seed of their own each time.

import { channelKills } from "./channel-kills.mjs";
import { hundredKills } from "./hundred-kills.mjs";
import { script } from "./support.mjs";

const seed = () => Math.floor(Math.random() * 1e6);
await script(async () => {
  await hundredKills({ kills: 12, seed: seed() });
  await channelKills({ kills: 12, seed: seed() });
});
