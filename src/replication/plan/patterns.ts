/** Texts of filters as predicates: globs, regular expressions in linear time (RE2 syntax), ranges of versions. */
import { RE2JS } from "re2js";
import semver from "semver";
import { SlipwayError } from "../../core/errors.ts";
import { compileGlob } from "./glob.ts";
import type { FilterKind } from "./policy.ts";

export interface Pattern {
  matches(text: string): boolean;
  /** The only texts that can match; null when there are others. */
  readonly literals: readonly string[] | null;
  /** The first path elements of what can match; null: any. */
  readonly namespaces: readonly string[] | null;
}

const MAX_LENGTH = 1024;

/** Throws BAD_REQUEST for a text that is not of its kind. */
export function compilePattern(text: string, kind: FilterKind): Pattern {
  switch (kind) {
    case "glob":
      return compileGlob(text);
    case "regex":
      return compileRegex(text);
    case "semver":
      return compileRange(text);
    default:
      return kind satisfies never;
  }
}

/** The whole text has to match, as with globs. */
function compileRegex(text: string): Pattern {
  if (text.length > MAX_LENGTH) throw invalid("regular expression", text, `it has more than ${MAX_LENGTH} characters`);
  let regex: RE2JS;
  try {
    regex = RE2JS.compile(text);
  } catch (error) {
    throw invalid("regular expression", text, error instanceof Error ? error.message.replace("error parsing regexp: ", "") : "");
  }
  return { matches: (name) => regex.testExact(name), literals: null, namespaces: namespaceOf(text) };
}

/** A plain first element, of an expression that has no alternatives. */
function namespaceOf(text: string): string[] | null {
  const first = /^\^?([a-z0-9_-]+)\/(?![?*{])/.exec(text)?.[1];
  return first === undefined || text.includes("|") ? null : [first];
}

function compileRange(text: string): Pattern {
  const range = text.length > MAX_LENGTH ? null : semver.validRange(text, { loose: true });
  if (range === null) throw invalid("version range", text, "expected a range like ^1.2, >=2.0.0 <3 or 1.x");
  const parsed = new semver.Range(range, { loose: true });
  return {
    matches: (tag) => {
      const version = readVersion(tag);
      return version !== null && parsed.test(version);
    },
    literals: null,
    namespaces: null,
  };
}

/** Whole versions only, with or without a v: `1.2` is a name that moves. Tags have no `+`, so builds are written with `_`. */
export function readVersion(tag: string): semver.SemVer | null {
  return semver.parse(tag.replace("_", "+"), { loose: true });
}

export function compareVersions(one: semver.SemVer, other: semver.SemVer): number {
  return semver.compareBuild(one, other);
}

function invalid(what: string, text: string, reason: string): SlipwayError {
  const shown = text.length > 100 ? `${text.slice(0, 100)}...` : text;
  return new SlipwayError("BAD_REQUEST", { message: `invalid ${what} ${JSON.stringify(shown)}: ${reason}` });
}
