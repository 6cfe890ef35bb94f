/** The table of commands. */
import type { CommandEntry } from "./command.ts";

export const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  config: {
    summary: "check the settings, or print their documentation",
    load: async () => (await import("./config-command.ts")).configCommand,
  },
  gc: {
    summary: "run garbage collection, or show the last runs",
    load: async () => (await import("./app-commands.ts")).gcCommand,
  },
  project: {
    summary: "add, list and remove projects, and their members",
    load: async () => (await import("./app-commands.ts")).projectCommand,
  },
  reconcile: {
    summary: "rebuild rows from storage, remove rows without bytes, or show the last runs",
    load: async () => (await import("./app-commands.ts")).reconcileCommand,
  },
  refresh: {
    summary: "show who refreshes executions and what was set aside, or reconcile them",
    load: async () => (await import("./app-commands.ts")).refreshCommand,
  },
  robot: {
    summary: "add, list and remove robots",
    load: async () => (await import("./app-commands.ts")).robotCommand,
  },
  user: {
    summary: "add, list and remove users, change passwords",
    load: async () => (await import("./app-commands.ts")).userCommand,
  },
  version: {
    summary: "print the version",
    load: async () => (await import("./version-command.ts")).versionCommand,
  },
};
