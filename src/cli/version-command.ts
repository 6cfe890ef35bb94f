/** `slipway version` */
import { readFile } from "node:fs/promises";
import type { Command } from "./command.ts";

export const versionCommand: Command = {
  usage: "slipway version",
  async run({ print }) {
    const manifest = JSON.parse(await readFile(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
    print(`slipway ${manifest.version} (node ${process.versions.node})`);
    return 0;
  },
};
