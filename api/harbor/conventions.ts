/** How the Harbor API reads bodies and writes answers. */
import express from "express";
import type { Request, RequestHandler } from "express";
import type { z } from "zod";
import { SlipwayError } from "../../src/core/errors.ts";

const parse = express.json({ limit: "1mb", strict: true });

/**
 * Bodies are JSON and say so: a form on a foreign page can post other types with the browser's saved credentials, but not this one.
 */
export const jsonBody: RequestHandler = (request, response, next) => {
  const hasBody = request.headers["transfer-encoding"] !== undefined || Number(request.headers["content-length"] ?? 0) > 0;
  if (hasBody && request.is("application/json") === false) {
    next(new SlipwayError("BAD_REQUEST", { message: "the content type must be application/json" }));
    return;
  }
  parse(request, response, next);
};

export function readBody<Schema extends z.ZodType>(request: Request, schema: Schema): z.output<Schema> {
  const result = schema.safeParse(request.body ?? {});
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const where = issue?.path.join(".") ?? "";
  throw new SlipwayError("BAD_REQUEST", { message: `invalid body${where === "" ? "" : ` at ${where}`}: ${issue?.message ?? ""}` });
}

/** A path parameter that must be a positive integer; 422 otherwise, as Harbor's parameter checks answer. */
export function readId(request: Request, name: string): number {
  const text = request.params[name];
  if (typeof text === "string" && /^[1-9]\d{0,14}$/.test(text)) return Number(text);
  throw new SlipwayError("UNPROCESSABLE", { message: `${name} in path must be of type int64` });
}

export function readQueryText(request: Request, name: string): string | undefined {
  const value = request.query[name];
  const text = Array.isArray(value) ? value[0] : value;
  return typeof text === "string" ? text : undefined;
}

export function readQueryBoolean(request: Request, name: string): boolean | undefined {
  const text = readQueryText(request, name);
  if (text === undefined || text === "") return undefined;
  if (/^(true|1|t)$/i.test(text)) return true;
  if (/^(false|0|f)$/i.test(text)) return false;
  throw new SlipwayError("UNPROCESSABLE", { message: `${name} in query must be of type boolean` });
}

type Json = string | number | boolean | null | undefined | readonly Json[] | { readonly [name: string]: Json };

/** Zero scalars and empty texts are left out unless named; empty arrays are null. Clients generated from Harbor's description expect it. */
export function omitEmpty(fields: Readonly<Record<string, Json>>, always: readonly string[] = []): Record<string, Json> {
  const result: Record<string, Json> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (always.includes(name)) result[name] = value ?? null;
    else if (Array.isArray(value) && value.length === 0) result[name] = null;
    else if (value !== undefined && value !== null && value !== "" && value !== 0 && value !== false) result[name] = value;
  }
  return inOrder(result);
}

/** Keys by name, as generated servers write them. */
export function inOrder<Value>(fields: Readonly<Record<string, Value>>): Record<string, Value> {
  return Object.fromEntries(Object.entries(fields).toSorted(([one], [other]) => (one < other ? -1 : 1)));
}
