/** The entry of `npm run slipway -- <command>`: finds the command, runs it, turns its outcome into an exit code. */
import { isSlipwayError } from "../core/errors.ts";
import { UsageError } from "./command.ts";
import type { Command, CommandContext } from "./command.ts";
import { COMMANDS } from "./commands.ts";

const USAGE_EXIT = 2;

async function main(argv: readonly string[]): Promise<number> {
  const [name = "help", ...args] = argv;
  if (name === "help" || name === "--help" || name === "-h") return help(args[0]);
  const entry = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!entry) {
    printError(`slipway: no command "${name}"; \`npm run slipway -- help\` lists them`);
    return USAGE_EXIT;
  }
  const command = await entry.load();
  if (args.includes("--help") || args.includes("-h")) return help(name);
  return runCommand(command, { args, signal: endSignal(), print, printError });
}

async function runCommand(command: Command, context: CommandContext): Promise<number> {
  try {
    return await command.run(context);
  } catch (error) {
    if (error instanceof UsageError) {
      printError(`slipway: ${error.message}\n\nusage: ${command.usage}`);
      return USAGE_EXIT;
    }
    if (!isSlipwayError(error)) throw error;
    printError(`slipway: ${error.message}`);
    return 1;
  }
}

async function help(name: string | undefined): Promise<number> {
  const entry = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (entry) {
    print(`usage: ${(await entry.load()).usage}`);
    return 0;
  }
  print("usage: npm run slipway -- <command> [arguments]\n");
  const width = Math.max(...Object.keys(COMMANDS).map((key) => key.length));
  for (const [key, { summary }] of Object.entries(COMMANDS).toSorted()) print(`  ${key.padEnd(width)}  ${summary}`);
  print("\nnpm start runs the server; `help <command>` tells more about a command.");
  return 0;
}

function endSignal(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => controller.abort(new Error(`ended by ${signal}`)));
  return controller.signal;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function printError(line: string): void {
  process.stderr.write(`${line}\n`);
}

process.exitCode = await main(process.argv.slice(2));
