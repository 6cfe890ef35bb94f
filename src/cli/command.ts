/** What a command of `slipway` is. Each lives in a file of its own and is loaded only when it is called. */
import { parseArgs } from "node:util";
import { SlipwayError } from "../core/errors.ts";

export interface CommandContext {
  /** What follows the command's name. */
  readonly args: readonly string[];
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  readonly print: (line: string) => void;
  readonly printError: (line: string) => void;
}

export interface Command {
  /** Shown by `slipway help <name>`; the first line is the form of the call. */
  readonly usage: string;
  /** The exit code. A SlipwayError or a UsageError is shown as one line, anything else with its stack. */
  run(context: CommandContext): Promise<number>;
}

export interface CommandEntry {
  /** One line for the list of commands. */
  readonly summary: string;
  readonly load: () => Promise<Command>;
}

/** The call does not fit the usage: exit code 2, and the usage is shown. */
export class UsageError extends SlipwayError {
  constructor(message: string) {
    super("BAD_REQUEST", { message });
  }
}

/** Of commands that start a run and follow it unless told not to. */
export function parseVerb(args: readonly string[]): { detach: boolean; verb: string | undefined } {
  try {
    const options = { detach: { type: "boolean", default: false } } as const;
    const { values, positionals } = parseArgs({ args: [...args], allowPositionals: true, options });
    return { detach: values.detach, verb: positionals[0] };
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : "the arguments cannot be read");
  }
}
