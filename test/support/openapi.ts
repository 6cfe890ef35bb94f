/** docs/openapi.yaml as a check: which operations it has, and whether an answer fits its schema. Only what that file uses is understood. */
import { readFile } from "node:fs/promises";
import { parse } from "yaml";

interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | Schema;
  readonly items?: Schema;
  readonly format?: string;
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
}

interface ResponseSpec {
  readonly $ref?: string;
  readonly content?: Readonly<Record<string, { readonly schema?: Schema }>>;
}

interface Operation {
  readonly responses: Readonly<Record<string, ResponseSpec>>;
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly [name: string]: unknown;
}

const METHODS = new Set(["get", "head", "post", "put", "patch", "delete"]);
const KEYWORDS = new Set([
  "$ref",
  "type",
  "enum",
  "properties",
  "required",
  "additionalProperties",
  "items",
  "format",
  "pattern",
  "minimum",
  "maximum",
  "minLength",
  "maxLength",
  "description",
  "default",
]);

export class OpenApi {
  readonly #document: Document;

  constructor(document: Document) {
    this.#document = document;
  }

  /** "GET /api/v2.0/users/{id}", sorted. */
  operations(): string[] {
    return Object.entries(this.#document.paths)
      .flatMap(([path, item]) =>
        Object.keys(item)
          .filter((method) => METHODS.has(method))
          .map((method) => `${method.toUpperCase()} ${path}`),
      )
      .toSorted();
  }

  /** The operation that a request belongs to; literal segments win over parameters. */
  operationOf(method: string, pathname: string): string | null {
    const segments = pathname.split("/");
    const fits = Object.keys(this.#document.paths).filter((path) => {
      const parts = path.split("/");
      return parts.length === segments.length && parts.every((part, index) => part.startsWith("{") || part === segments[index]);
    });
    const best = fits.toSorted((one, other) => one.split("{").length - other.split("{").length)[0];
    return best === undefined ? null : `${method} ${best}`;
  }

  /** What is wrong with an answer; empty when it is as described. */
  checkResponse(operation: string, status: number, body: unknown): string[] {
    const [method = "", path = ""] = operation.split(" ");
    const responses = this.#document.paths[path]?.[method.toLowerCase()]?.responses;
    if (!responses) return [`${operation} is not described`];
    const spec = responses[String(status)] ?? (status >= 400 ? responses["default"] : undefined);
    if (!spec) return [`${operation} does not describe the status ${status}`];
    const content = this.#resolve(spec).content;
    const schema = content?.["application/json"]?.schema ?? content?.["text/plain"]?.schema;
    if (!schema) return body === undefined || body === "" ? [] : [`${operation} ${status} describes no body`];
    return this.#check(schema, body, "$");
  }

  #check(given: Schema, value: unknown, at: string): string[] {
    const schema = this.#resolve(given);
    const unknown = Object.keys(schema).find((keyword) => !KEYWORDS.has(keyword));
    if (unknown !== undefined) throw new Error(`the validator does not know the keyword ${unknown} at ${at}`);
    const types = schema.type === undefined ? [] : typeof schema.type === "string" ? [schema.type] : schema.type;
    if (types.length > 0 && !types.includes(typeOf(value)) && !(types.includes("number") && typeOf(value) === "integer")) {
      return [`${at}: expected ${types.join(" or ")}, found ${typeOf(value)}`];
    }
    if (schema.enum && !schema.enum.includes(value)) return [`${at}: ${JSON.stringify(value)} is none of ${schema.enum.join(", ")}`];
    if (typeof value === "string") return checkString(schema, value, at);
    if (typeof value === "number") return checkNumber(schema, value, at);
    if (Array.isArray(value)) {
      const items = schema.items;
      return items ? value.flatMap((item, index) => this.#check(items, item, `${at}[${index}]`)) : [];
    }
    return typeof value === "object" && value !== null ? this.#checkObject(schema, value as Record<string, unknown>, at) : [];
  }

  #checkObject(schema: Schema, value: Readonly<Record<string, unknown>>, at: string): string[] {
    const problems = (schema.required ?? []).filter((name) => !(name in value)).map((name) => `${at}: ${name} is missing`);
    for (const [name, item] of Object.entries(value)) {
      const property = schema.properties?.[name] ?? schema.additionalProperties;
      if (property === false) problems.push(`${at}: ${name} is not described`);
      else if (typeof property === "object") problems.push(...this.#check(property, item, `${at}.${name}`));
    }
    return problems;
  }

  #resolve<T extends { readonly $ref?: string }>(value: T): T {
    if (value.$ref === undefined) return value;
    let target: unknown = this.#document;
    for (const part of value.$ref.replace(/^#\//, "").split("/")) target = (target as Record<string, unknown> | undefined)?.[part];
    if (target === undefined) throw new Error(`${value.$ref} leads nowhere`);
    return this.#resolve(target as T);
  }
}

function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return Number.isInteger(value) ? "integer" : typeof value;
}

function checkString(schema: Schema, value: string, at: string): string[] {
  const problems: string[] = [];
  if (schema.pattern !== undefined && !new RegExp(schema.pattern).test(value)) problems.push(`${at}: does not match ${schema.pattern}`);
  if (schema.format === "date-time" && !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/.test(value))
    problems.push(`${at}: is no time: ${value}`);
  if (value.length < (schema.minLength ?? 0)) problems.push(`${at}: is too short`);
  if (value.length > (schema.maxLength ?? Number.POSITIVE_INFINITY)) problems.push(`${at}: is too long`);
  return problems;
}

function checkNumber(schema: Schema, value: number, at: string): string[] {
  const low = value < (schema.minimum ?? Number.NEGATIVE_INFINITY);
  const high = value > (schema.maximum ?? Number.POSITIVE_INFINITY);
  return low || high ? [`${at}: ${value} is out of bounds`] : [];
}

export async function loadOpenApi(): Promise<OpenApi> {
  return new OpenApi(parse(await readFile(new URL("../../docs/openapi.yaml", import.meta.url), "utf8")) as Document);
}

interface RouteLayer {
  readonly route?: { readonly path: string; readonly methods: Readonly<Record<string, boolean>> };
}

/** The routes of an express router, written as in the document. */
export function routesOf(router: { readonly stack: readonly unknown[] }, prefix: string): string[] {
  return (router.stack as readonly RouteLayer[]).flatMap(({ route }) =>
    route
      ? Object.keys(route.methods)
          .filter((method) => METHODS.has(method))
          .map((method) => `${method.toUpperCase()} ${prefix}${route.path === "/" ? "" : route.path.replace(/:(\w+)/g, "{$1}")}`)
      : [],
  );
}
