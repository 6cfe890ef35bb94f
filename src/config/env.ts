/** The only reader of the environment and of the configuration file. It finds values; src/config/config.ts decides what they mean. */
import { readFileSync } from "node:fs";
import { parse } from "smol-toml";
import { translateHarborCacheFile } from "./harbor-cache-file.ts";
import { parseFileValue, parseText } from "./key.ts";
import type { Key } from "./key.ts";
import { SCHEMA } from "./schema.ts";
import type { Settings } from "./schema.ts";
import { parseUpstreams } from "./upstreams.ts";
import type { ConfiguredUpstream } from "./upstreams.ts";

export interface ReadResult {
  readonly settings: Settings;
  /** Null without a configuration file: then nobody says which upstreams there should be. */
  readonly upstreams: readonly ConfiguredUpstream[] | null;
  readonly problems: string[];
  /** Not wrong, but worth telling once. */
  readonly notices: readonly string[];
}

/** Variables of ours that are no settings. */
const OTHER_VARIABLES = /^SLIPWAY_(CONFIG$|CI_|TEST_|BENCH_|BOOTSTRAP_|VERSITYGW$)/;

/** Read by src/config/upstreams.ts. */
const UPSTREAM_SECTIONS: ReadonlySet<string> = new Set(["upstream", "upstreams"]);

type Sections = Record<string, Record<string, Key<unknown>>>;

export function readSettings(env: NodeJS.ProcessEnv = process.env): ReadResult {
  const problems: string[] = [];
  const given = readFile(env["SLIPWAY_CONFIG"], problems);
  const { file, givenAs, notices } = translateHarborCacheFile(given ?? {});
  const settings: Record<string, Record<string, unknown>> = {};
  const known = new Set<string>();
  for (const [section, keys] of Object.entries(SCHEMA as Sections)) {
    const values: Record<string, unknown> = {};
    for (const [name, key] of Object.entries(keys)) {
      known.add(key.env);
      const path = givenAs.get(`${section}.${name}`) ?? `${section}.${name}`;
      const fileValue = (file[section] as Record<string, unknown> | undefined)?.[name];
      values[name] = readValue(key, { path, text: env[key.env], fileValue }, problems);
    }
    settings[section] = values;
  }
  for (const name of Object.keys(env)) {
    if (name.startsWith("SLIPWAY_") && !known.has(name) && !OTHER_VARIABLES.test(name)) problems.push(`${name}: unknown setting`);
  }
  findUnknownFileKeys(file, problems);
  const upstreams = given === null ? null : parseUpstreams(file, problems);
  return { settings: settings as unknown as Settings, upstreams, problems, notices };
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

function readFile(path: string | undefined, problems: string[]): Record<string, unknown> | null {
  if (path === undefined || path === "") return null;
  try {
    return parse(readFileSync(path, "utf8"));
  } catch (error) {
    problems.push(`SLIPWAY_CONFIG: cannot read ${path}: ${error instanceof Error ? error.message.split("\n")[0] : "unknown"}`);
    return {};
  }
}

function findUnknownFileKeys(file: Record<string, unknown>, problems: string[]): void {
  const sections = SCHEMA as Sections;
  for (const [section, values] of Object.entries(file)) {
    if (UPSTREAM_SECTIONS.has(section)) continue;
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
