/** The table of commands. */
import type { CommandEntry } from "./command.ts";

export const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  config: {
    summary: "check the settings, or print their documentation",
    load: async () => (await import("./config-command.ts")).configCommand,
  },
  version: {
    summary: "print the version",
    load: async () => (await import("./version-command.ts")).versionCommand,
  },
};
