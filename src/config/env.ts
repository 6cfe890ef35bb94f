/** The only reader of the environment and of the configuration file. It finds values; src/config/config.ts decides what they mean. */
import { readFileSync } from "node:fs";
import { parse } from "smol-toml";
import { parseFileValue, parseText } from "./key.ts";
import type { Key } from "./key.ts";
import { SCHEMA } from "./schema.ts";
import type { Settings } from "./schema.ts";

export interface ReadResult {
  readonly settings: Settings;
  readonly problems: string[];
}

/** Variables of ours that are no settings. */
const OTHER_VARIABLES = /^SLIPWAY_(CONFIG$|TEST_|BENCH_|INTERNAL_|BOOTSTRAP_|VERSITYGW$)/;

type Sections = Record<string, Record<string, Key<unknown>>>;

export function readSettings(env: NodeJS.ProcessEnv = process.env): ReadResult {
  const problems: string[] = [];
  const file = readFile(env["SLIPWAY_CONFIG"], problems);
  const settings: Record<string, Record<string, unknown>> = {};
  const known = new Set<string>();
  for (const [section, keys] of Object.entries(SCHEMA as Sections)) {
    const values: Record<string, unknown> = {};
    for (const [name, key] of Object.entries(keys)) {
      known.add(key.env);
      values[name] = readValue(key, { path: `${section}.${name}`, text: env[key.env], fileValue: file[section]?.[name] }, problems);
    }
    settings[section] = values;
  }
  for (const name of Object.keys(env)) {
    if (name.startsWith("SLIPWAY_") && !known.has(name) && !OTHER_VARIABLES.test(name)) problems.push(`${name}: unknown setting`);
  }
  findUnknownFileKeys(file, problems);
  return { settings: settings as unknown as Settings, problems };
}

function readValue(key: Key<unknown>, source: { path: string; text: string | undefined; fileValue: unknown }, problems: string[]): unknown {
  if (source.text !== undefined && source.text !== "") {
    const parsed = parseText(key, source.text);
    if ("value" in parsed) return parsed.value;
    problems.push(`${key.env}: ${parsed.problem}${shown(key, source.text)}`);
    return key.default;
  }
  if (source.fileValue !== undefined) {
    const parsed = parseFileValue(key, source.fileValue);
    if ("value" in parsed) return parsed.value;
    problems.push(`${source.path}: ${parsed.problem}${shown(key, String(source.fileValue))}`);
  }
  return key.default;
}

function shown(key: Key<unknown>, text: string): string {
  return key.secret ? "" : `, found "${text.slice(0, 80)}"`;
}

function readFile(path: string | undefined, problems: string[]): Record<string, Record<string, unknown>> {
  if (path === undefined || path === "") return {};
  try {
    return parse(readFileSync(path, "utf8")) as Record<string, Record<string, unknown>>;
  } catch (error) {
    problems.push(`SLIPWAY_CONFIG: cannot read ${path}: ${error instanceof Error ? error.message.split("\n")[0] : "unknown"}`);
    return {};
  }
}

function findUnknownFileKeys(file: Record<string, unknown>, problems: string[]): void {
  const sections = SCHEMA as Sections;
  for (const [section, values] of Object.entries(file)) {
    const keys = sections[section];
    if (!keys) {
      problems.push(`${section}: unknown section of the configuration file`);
    } else if (typeof values !== "object" || values === null || Array.isArray(values)) {
      problems.push(`${section}: expected a section, as in [${section}]`);
    } else {
      for (const name of Object.keys(values)) if (!keys[name]) problems.push(`${section}.${name}: unknown setting`);
    }
  }
}
