/** Which part of the house may import which, and who may use what of the platform; checked over the import statements. */
import { readFileSync } from "node:fs";
import { glob } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";
import { findImports, withoutComments } from "./imports.ts";
import type { Import } from "./imports.ts";

export interface Violation {
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

type Part = "src" | "workflows" | "activities" | "workers" | "api" | "test";

interface Source {
  readonly file: string;
  readonly part: Part;
  readonly text: string;
  readonly imports: readonly (Import & { readonly target: string | null })[];
}

const PARTS: readonly Part[] = ["src", "workflows", "activities", "workers", "api", "test"];

/** Pure: they run in the workflow sandbox, so no node: module and no package that needs one. */
const PURE = /^src\/(core|oci)\/|^src\/(?:[^/]+\/)*plan\/|^src\/temporal\/(ids|queues)\.ts$/;

const ALLOWED: Readonly<Record<Exclude<Part, "test">, readonly Part[]>> = {
  src: ["src"],
  workflows: ["workflows", "src"],
  activities: ["activities", "src"],
  workers: ["workers", "activities", "workflows", "src"],
  api: ["api", "src"],
};

export async function checkArrows(root: string): Promise<Violation[]> {
  const sources: Source[] = [];
  for await (const file of glob(`{${PARTS.join(",")}}/**/*.{ts,mjs}`, { cwd: root }))
    sources.push(readSource(root, file.replaceAll("\\", "/")));
  sources.sort((a, b) => a.file.localeCompare(b.file));
  return [...sources.flatMap(checkSource), ...findCycles(sources)];
}

function readSource(root: string, file: string): Source {
  const text = readFileSync(join(root, file), "utf8");
  const imports = findImports(text).map((found) => ({ ...found, target: resolveTarget(file, found.specifier) }));
  return { file, part: file.split("/")[0] as Part, text: withoutComments(text), imports };
}

function resolveTarget(file: string, specifier: string): string | null {
  return specifier.startsWith(".") ? normalize(join(dirname(file), specifier)).replaceAll("\\", "/") : null;
}

function checkSource(source: Source): Violation[] {
  if (source.part === "test") return [];
  const violations: Violation[] = [];
  for (const found of source.imports) {
    const message = found.target === null ? checkPackage(source, found) : checkTarget(source, found, found.target);
    if (message !== null) violations.push({ file: source.file, line: found.line, message });
  }
  violations.push(...checkEnvironment(source));
  return violations;
}

function checkTarget(source: Source, found: Import, target: string): string | null {
  const { file, part } = source;
  const to = target.split("/")[0] as Part;
  if (!PARTS.includes(to)) return null;
  if (to === "test") return `imports ${target}: only tests may`;
  const says = `imports ${target}`;
  if (PURE.test(file) && !PURE.test(target)) return found.typeOnly ? null : `${says}: pure modules import pure modules only`;
  if ((file.startsWith("src/proxy/") || file.startsWith("api/v2/")) && target.startsWith("src/temporal/")) {
    return `${says}: the registry's request path never uses Temporal`;
  }
  if (part === "workflows") return checkWorkflow(found, to, target);
  if (part === "src" && to === "workflows" && found.typeOnly && file.startsWith("src/temporal/")) return null;
  if (file === "workers/main.ts" && to === "api") return null;
  const allowed: readonly Part[] = ALLOWED[part as Exclude<Part, "test">];
  return allowed.includes(to) ? null : `${says}: ${part} may import ${allowed.join(", ")} only`;
}

function checkWorkflow(found: Import, to: Part, target: string): string | null {
  if (to === "workflows") return null;
  if (to === "activities") return found.typeOnly ? null : `imports ${target}: workflows use activity types only (import type)`;
  if (to === "src" && (PURE.test(target) || found.typeOnly)) return null;
  return `imports ${target}: workflows import pure modules only`;
}

function checkPackage(source: Source, found: Import): string | null {
  const { file } = source;
  const { specifier } = found;
  const says = `imports ${specifier}`;
  if ((PURE.test(file) || file.startsWith("workflows/")) && specifier.startsWith("node:"))
    return `${says}: pure modules use no node: module`;
  if (file.startsWith("workflows/") && !/^@temporalio\/(workflow|common)$/.test(specifier) && !found.typeOnly) {
    return `${says}: workflows use @temporalio/workflow only`;
  }
  if ((file.startsWith("src/proxy/") || file.startsWith("api/v2/")) && specifier.startsWith("@temporalio/")) {
    return `${says}: the registry's request path never uses Temporal`;
  }
  if (/^undici(\/|$)/.test(specifier) && !file.startsWith("src/upstream/")) return `${says}: only src/upstream talks to other registries`;
  return null;
}

/** Settings come from one place; everything else takes them as arguments. */
function checkEnvironment(source: Source): Violation[] {
  if (source.file.startsWith("src/config/") || source.file === "src/cli/bootstrap.mjs") return [];
  const violations: Violation[] = [];
  for (const [index, line] of source.text.split("\n").entries()) {
    if (/\bprocess\s*\.\s*env\b|\bprocess\["env"\]|\{[^}]*\benv\b[^}]*\}\s*=\s*process\b/.test(line)) {
      violations.push({ file: source.file, line: index + 1, message: "reads process.env: only src/config does" });
    }
  }
  return violations;
}

/** A cycle of imports that exist at run time; types may refer to each other. Each is told once, at its first file by name. */
function findCycles(sources: readonly Source[]): Violation[] {
  const byFile = new Map(sources.map((source) => [source.file, source]));
  const done = new Set<string>();
  const told = new Set<string>();
  const violations: Violation[] = [];
  const walk = (file: string, path: string[]): void => {
    const start = path.indexOf(file);
    if (start !== -1) {
      const cycle = path.slice(start);
      const key = cycle.toSorted().join(" ");
      if (told.has(key)) return;
      told.add(key);
      violations.push({ file: cycle.toSorted()[0] ?? file, line: 1, message: `import cycle: ${[...cycle, file].join(" -> ")}` });
      return;
    }
    if (done.has(file)) return;
    for (const { target, typeOnly } of byFile.get(file)?.imports ?? []) {
      if (target !== null && !typeOnly && byFile.has(target)) walk(target, [...path, file]);
    }
    done.add(file);
  };
  for (const { file } of sources) walk(file, []);
  return violations;
}
