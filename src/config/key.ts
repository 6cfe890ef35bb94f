/**
 * One configuration key: where it stands in the environment and in the file, what it means, and how its text becomes a value. The
 * schema, the reader, the checks and docs/configuration.md are all made from these.
 */
export type KeyKind = "string" | "int" | "number" | "boolean" | "list" | "choice" | "path" | "url";

export interface Key<Value> {
  readonly kind: KeyKind;
  readonly env: string;
  readonly default: Value;
  readonly doc: string;
  readonly unit?: string;
  readonly secret?: boolean;
  readonly choices?: readonly string[];
  readonly min?: number;
  readonly max?: number;
  /** Carries the type of the value; never read. */
  readonly value?: Value;
}

type Rest<Value> = Pick<Key<Value>, "env" | "doc"> & Partial<Pick<Key<Value>, "unit" | "secret" | "min" | "max">>;

export function string(fallback: string, rest: Rest<string>): Key<string> {
  return { kind: "string", default: fallback, ...rest };
}

export function optionalString(rest: Rest<string | null>): Key<string | null> {
  return { kind: "string", default: null, ...rest };
}

export function optionalPath(rest: Rest<string | null>): Key<string | null> {
  return { kind: "path", default: null, ...rest };
}

export function path(fallback: string, rest: Rest<string>): Key<string> {
  return { kind: "path", default: fallback, ...rest };
}

export function optionalUrl(rest: Rest<string | null>): Key<string | null> {
  return { kind: "url", default: null, ...rest };
}

export function int(fallback: number, rest: Rest<number>): Key<number> {
  return { kind: "int", default: fallback, ...rest };
}

export function number(fallback: number, rest: Rest<number>): Key<number> {
  return { kind: "number", default: fallback, ...rest };
}

export function boolean(fallback: boolean, rest: Rest<boolean>): Key<boolean> {
  return { kind: "boolean", default: fallback, ...rest };
}

export function list(fallback: readonly string[], rest: Rest<readonly string[]>): Key<readonly string[]> {
  return { kind: "list", default: fallback, ...rest };
}

export function choice<const Choice extends string>(choices: readonly Choice[], fallback: Choice, rest: Rest<Choice>): Key<Choice> {
  return { kind: "choice", default: fallback, choices, ...rest };
}

/** Returns the value, or the reason why the text is none. */
export function parseText(key: Key<unknown>, text: string): { value: unknown } | { problem: string } {
  switch (key.kind) {
    case "string":
    case "path":
      return text === "" ? { problem: "expected a text that is not empty" } : { value: text };
    case "url":
      return URL.canParse(text) ? { value: text } : { problem: "expected a URL such as https://registry.example.com" };
    case "int":
    case "number":
      return parseNumber(key, text);
    case "boolean":
      if (text === "true" || text === "1") return { value: true };
      if (text === "false" || text === "0") return { value: false };
      return { problem: "expected true or false" };
    case "list":
      return {
        value: text
          .split(",")
          .map((part) => part.trim())
          .filter((part) => part !== ""),
      };
    case "choice":
      return key.choices?.includes(text) ? { value: text } : { problem: `expected one of ${key.choices?.join(", ")}` };
  }
}

function parseNumber(key: Key<unknown>, text: string): { value: number } | { problem: string } {
  const value = /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isNaN(value) || (key.kind === "int" && !Number.isSafeInteger(value))) {
    return { problem: `expected a ${key.kind === "int" ? "whole " : ""}number` };
  }
  if (key.min !== undefined && value < key.min) return { problem: `expected at least ${key.min}` };
  if (key.max !== undefined && value > key.max) return { problem: `expected at most ${key.max}` };
  return { value };
}

/** A value of the file has a type already; it must be the key's. */
export function parseFileValue(key: Key<unknown>, value: unknown): { value: unknown } | { problem: string } {
  if (key.kind === "list") {
    if (Array.isArray(value) && value.every((item) => typeof item === "string")) return { value };
    return { problem: "expected a list of texts" };
  }
  const wanted = key.kind === "int" || key.kind === "number" ? "number" : key.kind === "boolean" ? "boolean" : "string";
  const given = typeof value === "bigint" ? "number" : typeof value;
  if (given !== wanted) return { problem: `expected a ${wanted}, found ${Array.isArray(value) ? "list" : given}` };
  return parseText(key, String(value));
}
