#!/usr/bin/env node
// A dozen kills: the short form of `hundred-kills.mjs`, with a seed of its own each time.

import { hundredKills } from "./hundred-kills.mjs";
import { script } from "./support.mjs";

await script(() => hundredKills({ kills: 12, seed: Math.floor(Math.random() * 1e6) }));
