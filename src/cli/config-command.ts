/** `slipway config` */
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { loadConfig } from "../config/config.ts";
import { renderConfigurationDocs } from "../config/docs.ts";
import { UsageError } from "./command.ts";
import type { Command } from "./command.ts";

const DOCS_FILE = fileURLToPath(new URL("../../docs/configuration.md", import.meta.url));

export const configCommand: Command = {
  usage: [
    "slipway config <check | docs [--write]>",
    "  check         reads the environment and the file that SLIPWAY_CONFIG names, and lists what is wrong",
    "  docs          prints the documentation of all settings",
    "  docs --write  writes it to docs/configuration.md",
  ].join("\n"),
  async run({ args, print }) {
    const [what, flag] = args;
    if (what === "check" && args.length === 1) {
      // Throws one line for each problem.
      loadConfig();
      print("the configuration is valid");
      return 0;
    }
    if (what === "docs" && args.length === 1) {
      print(renderConfigurationDocs().trimEnd());
      return 0;
    }
    if (what === "docs" && flag === "--write" && args.length === 2) {
      await writeFile(DOCS_FILE, renderConfigurationDocs());
      print(`wrote ${DOCS_FILE}`);
      return 0;
    }
    throw new UsageError("config needs `check` or `docs`");
  },
};
