/** Paging, sorting and the q language of the Harbor API. */
import type { Request, Response } from "express";
import type { Filter, ListQuery } from "../../src/auth/list-query.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { readQueryBoolean, readQueryText } from "./conventions.ts";

const DEFAULT_PAGE_SIZE = 10;
const MAX_PAGE_SIZE = 100;
/** For Harbor a size of 0 or less is no limit; nobody gets more than this at once. */
const UNPAGED = 10_000;
const MAX_Q_LENGTH = 4096;

/** `keys` are those that the list knows; others are ignored unless the client asks to be strict. */
export function readListQuery(request: Request, keys: readonly string[]): ListQuery {
  const filters = parseQ(readQueryText(request, "q") ?? "");
  const sort = parseSort(readQueryText(request, "sort") ?? "");
  if (readQueryBoolean(request, "strict") === true) {
    const unknown = [...filters, ...sort].find(({ key }) => !keys.includes(key.toLowerCase()));
    if (unknown) throw new SlipwayError("BAD_REQUEST", { message: `unknown key ${unknown.key}; known: ${keys.join(", ")}` });
  }
  return { filters, sort, ...readPage(request) };
}

export function readPage(request: Request): { readonly page: number; readonly pageSize: number } {
  const page = readInteger(request, "page", { fallback: 1, min: 1, max: 1_000_000_000 });
  const pageSize = readInteger(request, "page_size", { fallback: DEFAULT_PAGE_SIZE, min: Number.NEGATIVE_INFINITY, max: MAX_PAGE_SIZE });
  return pageSize > 0 ? { page, pageSize } : { page: 1, pageSize: UNPAGED };
}

function readInteger(request: Request, name: string, { fallback, min, max }: { fallback: number; min: number; max: number }): number {
  const text = readQueryText(request, name);
  if (text === undefined || text === "") return fallback;
  if (!/^-?\d{1,12}$/.test(text)) throw new SlipwayError("UNPROCESSABLE", { message: `${name} in query must be of type int64` });
  const value = Number(text);
  if (value < min) throw new SlipwayError("UNPROCESSABLE", { message: `${name} in query should be greater than or equal to ${min}` });
  if (value > max) throw new SlipwayError("UNPROCESSABLE", { message: `${name} in query should be less than or equal to ${max}` });
  return value;
}

/** X-Total-Count, and Link to the neighbour pages with every other parameter kept. */
export function setListHeaders(request: Request, response: Response, page: { total: number; page: number; pageSize: number }): void {
  response.set("X-Total-Count", String(page.total));
  if (page.total === 0 || page.pageSize > MAX_PAGE_SIZE) return;
  const links: string[] = [];
  if (page.page > 1) links.push(linkTo(request, page.page - 1, { size: page.pageSize, rel: "prev" }));
  if (page.page * page.pageSize < page.total) links.push(linkTo(request, page.page + 1, { size: page.pageSize, rel: "next" }));
  if (links.length > 0) response.set("Link", links.join(" , "));
}

function linkTo(request: Request, page: number, { size, rel }: { size: number; rel: "prev" | "next" }): string {
  const url = new URL(request.originalUrl, "http://localhost");
  url.searchParams.set("page", String(page));
  url.searchParams.set("page_size", String(size));
  return `<${url.pathname}${url.search}>; rel="${rel}"`;
}

export function parseSort(text: string): ListQuery["sort"] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "" && part !== "-")
    .slice(0, 8)
    .map((part) => (part.startsWith("-") ? { key: toKey(part.slice(1)), descending: true } : { key: toKey(part), descending: false }));
}

/** The value of q has been URL-decoded once already; Harbor decodes it once more, and clients encode it twice. */
export function parseQ(text: string): Filter[] {
  if (text === "") return [];
  if (text.length > MAX_Q_LENGTH) throw invalid("it is too long");
  return splitConditions(decodeAgain(text)).map(parseCondition);
}

function decodeAgain(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid("it is not URL-encoded correctly");
  }
}

const CLOSING: Readonly<Record<string, string>> = { "[": "]", "{": "}", "(": ")" };

/** Commas separate conditions, except inside brackets and quotes. */
function splitConditions(text: string): string[] {
  const parts: string[] = [];
  let current = "";
  let until: string | null = null;
  for (const char of text) {
    if (until !== null) {
      if (char === until) until = null;
    } else if (char === '"') until = char;
    else if (CLOSING[char] !== undefined && /=\s*$/.test(current)) until = CLOSING[char] ?? null;
    if (char === "," && until === null) {
      parts.push(current);
      current = "";
    } else current += char;
  }
  return [...parts, current];
}

function parseCondition(text: string): Filter {
  const equals = text.indexOf("=");
  const name = text.slice(0, Math.max(0, equals)).trim();
  const [, plain = name, operator] = OPERATED.exec(name) ?? [];
  const key = toKey(plain);
  const value = text.slice(equals + 1).trim();
  if (key === "" || value === "") throw invalid(`"${text}" is not of the form key=value`);
  const operated = withOperator(key, operator, unquote(value));
  if (operated !== null) return operated;
  if (value.startsWith("\\")) return { key, kind: "equals", value: value.slice(1) };
  if (value.startsWith("~")) return { key, kind: "contains", value: unquote(value.slice(1)) };
  const inner = value.slice(1, -1).trim();
  const closing = CLOSING[value[0] ?? ""];
  if (closing === undefined) return { key, kind: "equals", value: unquote(value) };
  if (!value.endsWith(closing)) throw invalid(`"${text}" lacks ${closing}`);
  if (closing === "]") {
    const [min = "", max = "", ...rest] = inner.split("~");
    if (rest.length > 0 || !inner.includes("~")) throw invalid(`"${text}" is not of the form key=[min~max]`);
    return { key, kind: "range", min: unquote(min.trim()) || null, max: unquote(max.trim()) || null };
  }
  const values = inner.split(/\s+/).filter((item) => item !== "");
  return { key, kind: closing === "}" ? "any" : "all", values: values.map(unquote) };
}

const OPERATED = /^(.+)__(icontains|gte|lte|gt|lt|exact|in)$/;

/** Keys are columns, or fields of a structure in Go. */
function toKey(name: string): string {
  return name
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replaceAll(/([A-Z])([A-Z][a-z])/g, "$1_$2")
    .toLowerCase();
}

/** Some clients write the comparison behind the key. Null for those that the value itself says. */
function withOperator(key: string, operator: string | undefined, value: string): Filter | null {
  switch (operator) {
    case "icontains":
      return { key, kind: "contains", value };
    case "gte":
      return { key, kind: "range", min: value, max: null };
    case "lte":
      return { key, kind: "range", min: null, max: value };
    case "gt":
      return { key, kind: "beyond", above: value, below: null };
    case "lt":
      return { key, kind: "beyond", above: null, below: value };
    default:
      return null;
  }
}

/** Harbor itself writes single quotes when it asks a peer for projects by name. */
function unquote(text: string): string {
  return /^(["']).*\1$/s.test(text) && text.length >= 2 ? text.slice(1, -1) : text;
}

function invalid(reason: string): SlipwayError {
  return new SlipwayError("BAD_REQUEST", { message: `the q parameter is invalid: ${reason}` });
}
