/** What a policy's filters must be, with Harbor's texts. What will be matched later is compiled here, so that a mistake shows when it is made. */
import { SlipwayError } from "../core/errors.ts";
import { compilePattern } from "./plan/patterns.ts";
import { filterKinds, filterTypes } from "./plan/policy.ts";
import type { FilterKind, FilterType, PolicyFilter } from "./plan/policy.ts";

export interface FilterInput {
  readonly type: string;
  readonly value: unknown;
  readonly decoration: string;
  /** Absent: as the same filter had it; null: a glob. */
  readonly kind: string | null | undefined;
}

interface FilterRule {
  readonly kinds: readonly FilterKind[];
  readonly decorated: boolean;
  read(value: unknown): PolicyFilter["value"];
}

const MAX_FILTERS = 64;
const MAX_JSON = 16_384;
const MAX_NEWEST = 10_000;
const MAX_AGE_SECONDS = 3_155_760_000;

const RULES: Readonly<Record<FilterType, FilterRule>> = {
  name: { kinds: ["glob", "regex"], decorated: true, read: readText },
  tag: { kinds: ["glob", "regex", "semver"], decorated: true, read: readText },
  label: { kinds: ["glob"], decorated: true, read: readLabels },
  resource: { kinds: ["glob"], decorated: false, read: readResource },
  platform: { kinds: ["glob"], decorated: false, read: readPlatforms },
  media_type: { kinds: ["glob", "regex"], decorated: true, read: readTypes },
  artifact_type: { kinds: ["glob", "regex"], decorated: true, read: readTypes },
  max_age: { kinds: ["glob"], decorated: false, read: (value) => readNumber(value, "max_age", MAX_AGE_SECONDS) },
  newest: { kinds: ["glob", "semver"], decorated: false, read: (value) => readNumber(value, "newest", MAX_NEWEST) },
};

/** Throws BAD_REQUEST with the first thing that is wrong. `existing` are those that the policy has. */
export function draftFilters(inputs: readonly FilterInput[], existing: readonly PolicyFilter[]): PolicyFilter[] {
  const filters = inputs.map((input) => draftFilter(input, existing));
  if (filters.length > MAX_FILTERS) throw invalid(`a policy has at most ${MAX_FILTERS} filters`);
  if (JSON.stringify(filters).length > MAX_JSON) throw invalid(`the filters are longer than ${MAX_JSON} characters`);
  return filters;
}

function draftFilter(input: FilterInput, existing: readonly PolicyFilter[]): PolicyFilter {
  const type = filterTypes.find((one) => one === input.type);
  if (type === undefined) throw invalid("invalid filter type");
  const rule = RULES[type];
  const value = rule.read(input.value);
  if (!rule.decorated && input.decoration !== "") {
    throw invalid(type === "resource" ? "only tag and label filter support decoration" : `the ${type} filter supports no decoration`);
  }
  const { decoration } = input;
  if (decoration !== "" && decoration !== "matches" && decoration !== "excludes") {
    throw invalid(`invalid filter decoration, :${decoration.slice(0, 64)}`);
  }
  const known = existing.find((one) => one.type === type && one.decoration === decoration && isSame(one.value, value));
  const kind = readKind(input.kind === undefined ? (known?.kind ?? "glob") : (input.kind ?? "glob"), rule);
  if (rule.read === readText || rule.read === readTypes) for (const text of [value].flat()) compilePattern(String(text), kind);
  return { type, kind, value, decoration };
}

function readKind(given: string, { kinds }: FilterRule): FilterKind {
  const kind = filterKinds.find((one) => one === given);
  if (kind === undefined || !kinds.includes(kind)) throw invalid(`invalid filter kind: ${given.slice(0, 64)}`);
  return kind;
}

function readText(value: unknown): string {
  if (typeof value !== "string") throw invalid("the type of filter value isn't string");
  return withoutNul(value);
}

function readResource(value: unknown): string {
  const text = readText(value);
  if (text !== "image" && text !== "artifact") throw invalid(`invalid resource filter: ${text.slice(0, 64)}`);
  return text;
}

function readLabels(value: unknown): string[] {
  const wrong = "the type of label filter value isn't string slice";
  if (!Array.isArray(value)) throw invalid(wrong);
  return value.map((label: unknown) => {
    if (typeof label !== "string") throw invalid(wrong);
    return withoutNul(label);
  });
}

function readTypes(value: unknown): string | string[] {
  const texts = typeof value === "string" ? [value] : Array.isArray(value) ? value : [];
  if (texts.length === 0 || !texts.every((text) => typeof text === "string" && text !== "")) {
    throw invalid("the type of filter value is neither string nor string slice");
  }
  for (const text of texts) withoutNul(String(text));
  return typeof value === "string" ? value : texts.map(String);
}

function readPlatforms(value: unknown): string | string[] {
  const platforms = readTypes(value);
  for (const platform of [platforms].flat()) {
    if (!/^[a-z0-9]+\/[a-z0-9_]+(?:\/[a-z0-9.]+)?$/.test(platform)) {
      throw invalid(`invalid platform ${JSON.stringify(platform.slice(0, 64))}: expected os/architecture or os/architecture/variant`);
    }
  }
  return platforms;
}

function readNumber(value: unknown, type: FilterType, max: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > max) {
    throw invalid(`the value of the ${type} filter must be a whole number from 1 to ${max}`);
  }
  return value;
}

/** The database cannot keep it. */
function withoutNul(text: string): string {
  if (text.includes("\u0000")) throw invalid("a filter value has a NUL character");
  return text;
}

function isSame(one: PolicyFilter["value"], other: PolicyFilter["value"]): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function invalid(message: string): SlipwayError {
  return new SlipwayError("BAD_REQUEST", { message });
}
